#!/usr/bin/env python
"""How fast records are answered on a processor: every engine, the network served plainly, and networks of others, taking turns in one run.

  python benchmarks/inference.py             everything (about 10 minutes)
  python benchmarks/inference.py --quick     a few rounds, without the engines that compile (about 1 minute)
  python benchmarks/inference.py --variants  what other structures would cost as well

Records: 10 s, 12 leads, 500 Hz, generated; the full-size network with 71 classes. The reference is what the reference architecture does: the network
without masks, eager, float32, one record at a time. Deployed is int8 static convolutions in onnxruntime, one thread a stream, a stream a processor.
A ratio is the median over rounds, in each of which all take a turn; `_threads` gives both sides all processors, the other figures one thread.
On a busy machine the `_threads` figures say more about torch's threads (benchmarks/threads.py) than about the network: see `others_share`.

Needs the package and its extra `onnx`; openvino, torch-ecg and g++ where they are. The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1", OPENVINO_TELEMETRY="0")  # before numpy and torch are there
import argparse, json, logging, platform, subprocess, sys, tempfile, time, warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

warnings.showwarning = lambda *a, **k: None; logging.disable(logging.WARNING)   # of exporters and quantisers
import numpy as np
import torch

from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.model import fold_batchnorm
from arrhythmia_classifier.synth import synth_records

from engines import deployed_files, engines, int8, network, onnx_engine, ort_engine, session, to_onnx, torch_engine
from peers import PEERS, macs, parameters
from timing import Watch, network_code, ratio, seconds, turns

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
GOALS = dict(throughput_vs_reference=3, throughput_vs_reference_threads=2, latency_vs_reference_b1=1.4, latency_vs_reference_b1_threads=1.4, vs_xresnet1d101=2.5, vs_torch_ecg=4)
AT_MOST = dict(mask_cost=1.1, mask_cost_b1=1.1, mask_cost_deployed=1.05, cold_start_s=.6)


def with_threads(n, f):
    "f with torch set to n threads, and back to one."
    def run():
        torch.set_num_threads(n)
        try: return f()
        finally: torch.set_num_threads(1)
    return run


def one_by_one(engine, records):
    return lambda: [engine(x[None], np.array([x.shape[1]])) for x in records]


def streams(engine, records, n, batch=1):
    "The records over n threads; a session may be called from several at once, and each call computes in its own."
    parts = [np.stack(records[i:i + batch]) for i in range(0, len(records), batch)]; pool = ThreadPoolExecutor(n)
    return lambda: list(pool.map(lambda x: engine(x, np.full(len(x), x.shape[2])), parts))


def serving(net, folder, records, rounds):
    "Records a second of the reference, of the deployed form and of the peers, and their ratios."
    absent, n = {}, len(records); d1, dn = onnx_engine(folder/"int8.onnx"), onnx_engine(folder/"int8.onnx", CORES)
    plain = one_by_one(torch_engine(net, False), records)
    ways = dict(reference=plain, reference_threads=with_threads(CORES, plain), deployed_1=one_by_one(d1, records),
                deployed_b1_threads=one_by_one(dn, records), deployed=streams(d1, records, CORES), deployed_batch8=streams(d1, records, CORES, 8),
                fp32_streams=streams(onnx_engine(folder/"fp32.onnx"), records, CORES))
    for name in ("xresnet1d101", "torch_ecg"):
        try: peer = one_by_one(torch_engine(PEERS[name](71).eval(), False), records[:max(1, n//4)])
        except Exception as e: absent[name] = f"{type(e).__name__}: {e}"[:200]; continue
        ways |= {name: peer, f"{name}_threads": with_threads(CORES, peer)}
    t = turns(ways, rounds); count = {k: max(1, n//4) if k.removesuffix("_threads") in PEERS else n for k in ways}
    t = {k: np.array(v)/count[k] for k, v in t.items()}                                       # seconds a record
    out = dict(throughput_vs_reference=ratio(t, "reference", "deployed"), throughput_vs_reference_threads=ratio(t, "reference_threads", "deployed"),
               latency_vs_reference_b1=ratio(t, "reference", "deployed_1"), latency_vs_reference_b1_threads=ratio(t, "reference_threads", "deployed_b1_threads"))
    for name in ("xresnet1d101", "torch_ecg"):
        out[f"vs_{name}"] = ratio(t, name, "deployed_1") if name in t else None
        out[f"vs_{name}_threads"] = ratio(t, f"{name}_threads", "deployed") if name in t else None
    return out | dict(records_per_s={k: round(1/float(np.median(v)), 1) for k, v in t.items()},
                      best_records_per_s={k: round(1/v.min(), 1) for k, v in t.items()}, absent_peers=absent)


def mask_cost(net, folder, records, rounds):
    "What it costs to ignore padding, full lengths: eager, batch of 16 and one record; deployed, one record in int8 and in float32."
    naive, mine = torch_engine(net, False), torch_engine(net)
    to_onnx(fold_batchnorm(net), folder/"naive.onnx", masked=False); int8(folder/"naive.onnx", folder/"naive8.onnx", records[:4])
    one, sixteen = np.stack(records[:1]), np.stack((records*16)[:16]); out = {}
    pairs = dict(mask_cost=(mine, naive, sixteen, rounds), mask_cost_b1=(mine, naive, one, 6*rounds),
                 mask_cost_deployed=(onnx_engine(folder/"int8.onnx"), ort_engine(folder/"naive8.onnx"), one, 6*rounds),
                 mask_cost_deployed_fp32=(onnx_engine(folder/"fp32.onnx"), ort_engine(folder/"naive.onnx"), one, 6*rounds))
    for name, (a, b, x, k) in pairs.items():
        n = np.full(len(x), x.shape[2])
        t = turns(dict(mine=lambda: a(x, n), naive=lambda: b(x, n)), k, 2); out[name] = ratio(t, "mine", "naive")
    return out


def table(net, folder, records, rounds, quick):
    "Each engine: ms of one record and of one of sixteen, × faster than the reference, seconds to make, MB, largest error as a share of the largest logit."
    one, sixteen = (np.stack((records*16)[:k]) for k in (1, 16)); n1, n16 = np.array([one.shape[2]]), np.full(16, one.shape[2])
    truth = torch_engine(net, False)(sixteen, n16); made, rows, absent = {}, {}, {}
    for name, (make, file) in engines(net, folder, quick).items():
        t = time.perf_counter()
        try: e = make(); off = float(np.abs(np.concatenate([e(one, n1), e(sixteen, n16)[1:]]) - truth).max()/np.abs(truth).max())
        except Exception as err: absent[name] = f"{type(err).__name__}: {err}".splitlines()[0][:200]; continue
        made[name] = e; mb = round((folder/file).stat().st_size/1e6, 1) if file else None
        rows[name] = dict(make_s=round(time.perf_counter() - t, 1), mb=mb, off=float(f"{off:.1e}"))
        print(f"  made {name}", flush=True)
    t1 = turns({k: (lambda e=e: e(one, n1)) for k, e in made.items()}, 4*rounds, 2)
    t16 = turns({k: (lambda e=e: e(sixteen, n16)) for k, e in made.items()}, rounds)
    for k, row in rows.items():
        row |= dict(ms=round(1e3*float(np.median(t1[k])), 2), x=ratio(t1, "eager", k),
                    ms_of_16=round(1e3*float(np.median(t16[k]))/16, 2), x_of_16=ratio(t16, "eager", k))
    return dict(engines=rows, absent_engines=absent)


COLD = dict(onnxruntime_int8=("int8.onnx", """import sys, numpy as np, onnxruntime as ort
o = ort.SessionOptions(); o.intra_op_num_threads = 1
s = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
print(s.run(None, dict(signal=np.zeros((1, 12, 5000), np.float32), lengths=np.array([5000])))[0].shape)"""),
            pt2=("model.pt2", """import sys, torch
from arrhythmia_classifier.pt2 import load_pt2
torch.set_num_threads(1)
with torch.inference_mode(): print(load_pt2(sys.argv[1])(torch.zeros(1, 12, 5000), torch.tensor([5000]))[0].shape)"""))


def cold_start(folder, rounds):
    "Seconds from the start of a process to its first logits."
    def start(file, code): return lambda: subprocess.run([sys.executable, "-c", code, str(folder/file)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    t = turns({k: start(*v) for k, v in COLD.items()}, rounds)
    mine = t["onnxruntime_int8"]
    return dict(cold_start_s=round(float(np.median(mine)), 3), cold_start_best_s=round(min(mine), 3), cold_start_pt2_s=round(float(np.median(t["pt2"])), 2))


@torch.inference_mode()
def eager_profile(net, x, rounds):
    "Share of each part of the network in an eager forward pass, one thread."
    parts = dict(stem=net.stem, **{f"stage{k + 1}": torch.nn.ModuleList(net.stages[2*k:2*k + 2]) for k in range(3)}, lstm=net.lstm)
    took, begun, hooks = Counter(), {}, []
    for name, part in parts.items():
        for m in (part if isinstance(part, torch.nn.ModuleList) else [part]):
            hooks += [m.register_forward_pre_hook(lambda m, a: begun.update({m: time.perf_counter()})),
                      m.register_forward_hook(lambda m, a, o, name=name: took.update({name: time.perf_counter() - begun[m]}))]
    x = torch.from_numpy(x); net(x); took.clear(); total = sum(seconds(lambda: net(x)) for _ in range(rounds))
    for h in hooks: h.remove()
    return {k: round(v/total, 3) for k, v in took.items()} | dict(rest=round(1 - sum(took.values())/total, 3))


def ort_profile(path, x, rounds, folder):
    "Share of each kind of operator in onnxruntime, one thread."
    s = session(path, profile=folder/"profile"); feeds = dict(signal=x, lengths=np.full(len(x), x.shape[2])); spent = Counter()
    for _ in range(rounds): s.run(None, feeds)
    for e in json.loads(Path(s.end_profiling()).read_text()):
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            op = e["args"]["op_name"]; spent["lstm" if op == "LSTM" else "convolutions" if "Conv" in op else "rest"] += e["dur"]
    return {k: round(v/sum(spent.values()), 3) for k, v in spent.most_common()}


def profiles(net, folder, records, rounds):
    one, eight = np.stack(records[:1]), np.stack((records*8)[:8])
    q = folder/"int8.onnx"
    return dict(macs_m=round(macs(net, torch.from_numpy(one))/1e6), parameters=parameters(net),
                profile=dict(eager_1=eager_profile(net, one, 4*rounds), eager_8=eager_profile(net, eight, rounds),
                             int8_1=ort_profile(q, one, 4*rounds, folder), int8_8=ort_profile(q, eight, rounds, folder)))


def show(out):
    for name, e in out["engines"].items():
        print(f"{name:21s} {e['ms']:8.2f} ms  ×{e['x']:5.2f}   of 16 {e['ms_of_16']:7.2f} ms  ×{e['x_of_16']:5.2f}   "
              f"made in {e['make_s']:5.1f} s   {e['mb'] or '–':>5} MB   off by {e['off']:.0e}")
    for name, why in (out["absent_engines"] | out["absent_peers"]).items(): print(f"{name:21s} absent: {why}")
    for k, v in out["records_per_s"].items(): print(f"{k:22s} {v:8.1f} records/s   best {out['best_records_per_s'][k]:8.1f}")
    for k, v in out["profile"].items(): print(f"profile {k:12s} {v}")
    for k, v in out.get("variants", {}).items():
        print(f"{k:28s} {v['macs_m']:5d} MMAC {v['parameters']/1e6:5.2f} M   × faster: eager {v['eager']:.2f}  fp32 {v['fp32']:.2f}  int8 {v['int8']:.2f}  of 8 {v['int8_8']:.2f}")
    for k, v in out.items():
        if isinstance(v, (dict, list)): continue
        goal = f"  at least {GOALS[k]:g}" if k in GOALS else f"  at most {AT_MOST[k]:g}" if k in AT_MOST else ""
        print(f"{k:34s} {v}{goal}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--quick", action="store_true", help="few rounds, no engine that compiles")
    a.add_argument("--rounds", type=int, help="how often everything is measured (default 15, quick: 3)")
    a.add_argument("--variants", action="store_true", help="other structures as well")
    a.add_argument("--json", type=Path, help="file for the result")
    o = a.parse_args(); rounds = o.rounds or (3 if o.quick else 15); torch.set_num_threads(1); watch = Watch()
    records = [r.signal for r in synth_records(16, fs=500., seconds=10., seed=1)]; net = network(records[:8])
    with tempfile.TemporaryDirectory() as tmp:
        tmp = deployed_files(net, tmp, records[:8]); print("exported", flush=True)
        out = serving(net, tmp, records[:8] if o.quick else records, rounds) | mask_cost(net, tmp, records, rounds) | cold_start(tmp, 3 if o.quick else 9)
        out |= table(net, tmp, records, rounds, o.quick) | profiles(net, tmp, records, 2 if o.quick else 5)
        if o.variants:
            from variants import compare
            out |= dict(variants=compare(records, tmp, rounds))
    out |= dict(cores=CORES, others_share=watch.others(), network=network_code(), quick=o.quick, rounds=rounds, cpu=cpu(), python=platform.python_version(),
                **{k.replace("-", "_"): version(k) for k in ("torch", "onnxruntime", "openvino", "torch-ecg")})
    show(out)
    if (out["others_share"] or 0) > .1:
        print(f"others used {out['others_share']:.0%} of the machine: the _threads figures are those of the thread trap, the streams' are too low")
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


def version(package):
    from importlib.metadata import PackageNotFoundError, version
    try: return version(package)
    except PackageNotFoundError: return None


def cpu():
    "What decides: the model and the instructions for int8 and bfloat16."
    try: lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError: return platform.processor()
    get = lambda key: next((l.partition(":")[2].strip() for l in lines if l.startswith(key)), "")
    matter = "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"
    return " ".join([get("model name"), *[f for f in matter if f in get("flags").split()]])


if __name__ == "__main__": main()
