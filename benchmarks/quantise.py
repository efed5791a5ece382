#!/usr/bin/env python
"""Which way to fewer bits keeps the score, the promise and pays: every scheme tried on one classifier, one table, one CPU thread.

  python benchmarks/quantise.py --model FOLDER --data PTBXL          a saved classifier; PTB-XL as a folder or a pack
  python benchmarks/quantise.py --model FOLDER --data PTBXL --limit 200 --rounds 3      a first look

Scores are of --fold (9), which no calibration record comes from; ranges are fixed on 96 records of --calibrate-fold (8). `auc_change` is the macro
ROC-AUC's difference from float32, `worst_class` the largest loss of any class that has both sides in the fold (with its number of records),
`flips` decisions that change at the classifier's thresholds, `in_batch` the largest difference of a logit between a record alone and the same record
in a batch of 16 with longer ones, as cut from the fold; `promise`: whether it stays within 1e-5 + 1e-5*|logit|. `speed` is the median ratio of the time
of onnxruntime float32 to the scheme's, one 10 s record a call, taking turns. bfloat16 has no kernels here: `bfloat16-rounded` rounds weights and every
operator's output to bfloat16 and computes in float32, which shows what would become of the score.

`elsewhere`: whether another CPU gives the same sums: signed 8-bit weights overflow 16 bits in pairs where there is no VNNI, 7-bit ones do not.

The best: among those in 8 bits that lose at most 0.005 of the macro AUC and 0.02 of any class's, keep the promise and compute the same elsewhere, the
fastest; within 5 % of it, the smallest.
Needs the extra onnx. The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")  # before numpy and torch are there
import argparse, io, json, platform, tempfile, time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx, onnxruntime, torch

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.metrics import ranking
from arrhythmia_classifier.onnx_export import SCHEMES, _stored, export_onnx, load_onnx_classifier, quantise
from arrhythmia_classifier.sources import open_corpus

MACRO, CLASS = .005, .02   # what may be lost
FAST = ("LSTM", "Gemm", "MatMul")
TRIED = {"static": {}, "static, convolutions only": dict(operators=("Conv",)), "static, 8-bit weights": dict(bits7=False), "static, unsigned weights": dict(bits7=False, weights="QUInt8"),
         "static, 99.999 %": dict(method="Percentile"), "static, entropy": dict(method="Entropy"), "static, all products": dict(operators=("Conv", "Gemm", "MatMul")),
         "static, sums too": dict(operators=("Conv", "Gemm", "Add", "Mul", "MaxPool")), "static+stored": {}, "static+dynamic": {},
         "dynamic": {}, "dynamic, unsigned weights": dict(weights="QUInt8"), "dynamic, no convolutions": dict(operators=FAST), "stored": {},
         "float16": {}, "float16-stored": {}, "bfloat16-stored": {}, "bfloat16-rounded": {}}
OVERFLOW = ("static, 8-bit weights", "dynamic", "dynamic, no convolutions", "static+dynamic")


def rounded(src, out, batches=None):
    "Weights in bfloat16, and every float32 that an operator puts out rounded to it."
    _stored(src, out, kind="bfloat16", smallest=1); m = onnx.load(out); h = onnx.helper; nodes = []
    kinds = {o.name: o.type.tensor_type.elem_type for o in onnx.shape_inference.infer_shapes(m).graph.value_info}
    for n in m.graph.node:
        outs = [o for o in n.output if kinds.get(o) == onnx.TensorProto.FLOAT and n.op_type != "Cast"]; nodes.append(n)
        for o in outs:
            n.output[list(n.output).index(o)] = o + "_full"
            nodes += [h.make_node("Cast", [o + "_full"], [o + "_few"], to=onnx.TensorProto.BFLOAT16), h.make_node("Cast", [o + "_few"], [o], to=onnx.TensorProto.FLOAT)]
    m.graph.ClearField("node"); m.graph.node.extend(nodes); onnx.save(m, out)


SCHEMES["bfloat16-rounded"] = rounded


def logits(net, ds, batch=16):
    "Logits of a dataset's records, and their targets."
    z, y = [], []
    for i in range(0, len(ds), batch):
        b = ds.batch(range(i, min(i + batch, len(ds)))); z.append(net(b.signal.numpy(), b.lengths.numpy())[0]); y.append(b.target.numpy())
    return np.concatenate(z), np.concatenate(y)


def ragged(ds, n, fs, seed=0):
    "Batches of 16 of the fold's records cut to 2.5 to 10 s, noise standing in the padding."
    g = np.random.default_rng(seed)
    for i in range(0, min(n, len(ds)), 16):
        b = ds.batch(range(i, min(i + 16, len(ds)))); x = b.signal.numpy(); lengths = (b.lengths.numpy() * g.uniform(.25, 1, len(x))).astype(np.int64)
        lengths = np.maximum(lengths, round(fs)); lengths[0] = x.shape[2]
        for row, k in zip(x, lengths): row[:, k:] = g.normal(size=row[:, k:].shape)
        yield x, lengths


def in_batch(net, batches):
    "Largest difference of a logit alone and in the batch: as it is, and as a share of 1e-5 + 1e-5*|logit|."
    d = [(np.abs(w - (a := net(x[None, :, :k], [k])[0][0])).max(), (np.abs(w - a) / (1e-5 + 1e-5*np.abs(a))).max()) for xs, n in batches for x, k, w in zip(xs, n, net(xs, n)[0])]
    return [float(max(o)) for o in zip(*d)]


def speeds(nets, x, n, rounds):
    "Median over the rounds of each network's time in that of the first."
    times = []
    for _ in range(rounds + 1):
        row = []
        for net in nets: t = time.perf_counter(); net(x, n); row.append(time.perf_counter() - t)
        times.append(row)
    t = np.array(times[1:])
    return np.median(t[:, :1] / t, 0), np.median(t, 0) * 1e3


def few_bits(scheme): return not scheme.startswith(("float", "bfloat"))


def auc(y, p): return np.array([ranking(y[:, c], p[:, c], np.ones((1, len(y))))[0][0] for c in range(y.shape[1])])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", type=Path, required=True); a.add_argument("--data", type=Path, required=True)
    a.add_argument("--fold", type=int, default=9); a.add_argument("--calibrate-fold", type=int, default=8); a.add_argument("--records", type=int, default=96, help="to calibrate on")
    a.add_argument("--limit", type=int, help="records of the fold"); a.add_argument("--ragged", type=int, default=256); a.add_argument("--rounds", type=int, default=40)
    a.add_argument("--only", help="of the schemes, comma-separated beginnings"); a.add_argument("--json", type=Path)
    o = a.parse_args(); torch.set_num_threads(1)
    clf = Classifier.load(o.model)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); c = open_corpus(o.data, tmp); part = lambda f: [e for e in c.entries if e.fold == f and e.codes]
        ds = c.dataset(part(o.fold)[:o.limit], clf.vocab, clf.fs)
        pool = part(o.calibrate_fold); pool = [pool[i] for i in np.random.default_rng(0).permutation(len(pool))[:o.records]]
        cal = c.dataset(pool, clf.vocab, clf.fs); batches = [(cal.batch([i]).signal.numpy(), cal.batch([i]).lengths.numpy()) for i in range(len(cal))]
        export_onnx(clf, tmp/"float32.onnx"); nets, rows = {"float32": load_onnx_classifier(tmp/"float32.onnx").network}, {}
        for name, kw in TRIED.items():
            if o.only and not name.startswith(tuple(o.only.split(","))): continue
            try:
                with redirect_stdout(io.StringIO()): quantise(tmp/"float32.onnx", f := tmp/f"{len(nets)}.onnx", name.partition(",")[0], batches, **kw)
                nets[name] = load_onnx_classifier(f, contrib=True).network; rows[name] = dict(kb=round(f.stat().st_size/1e3))
            except Exception as e: rows[name] = dict(failed=f"{type(e).__name__}: {str(e).splitlines()[0][:160]}")
        rows = {"float32": dict(kb=round((tmp/"float32.onnx").stat().st_size/1e3))} | rows
        b = ds.batch([0]); ratio, ms = speeds([n.run for n in nets.values()], b.signal.numpy(), b.lengths.numpy(), o.rounds)
        hard, base = list(ragged(ds, o.ragged, clf.fs)), None
        for k, (name, net) in enumerate(nets.items()):
            z, y = logits(net.run, ds); p = clf.probabilities(z); u = auc(y, p)
            if base is None: base = z, p, u; n_pos = y.sum(0); scored = np.isfinite(u)
            d, loss = np.abs(z - base[0]), np.where(scored, base[2] - u, -1); w = int(loss.argmax()); leak, share = in_batch(net.run, hard)
            rows[name] |= dict(largest_logit=round(float(d.max()), 5), mean_logit=round(float(d.mean()), 6), largest_probability=round(float(np.abs(p - base[1]).max()), 5),
                               probability_99=round(float(np.quantile(np.abs(p - base[1]), .99)), 5),
                               auc=round(float(u[scored].mean()), 5), auc_change=round(float((u - base[2])[scored].mean()), 5), worst_class=round(float(loss[w]), 5),
                               worst_code=clf.vocab.codes[w], worst_positives=int(n_pos[w]), flips=int(((p >= clf.thresholds) != (base[1] >= clf.thresholds)).sum()),
                               in_batch=float(f"{leak:.1e}"), promise=share <= 1, speed=round(float(ratio[k]), 2), ms=round(float(ms[k]), 2))
            r = rows[name]; print(f"{name:26s} {r['kb']:6} kB  logit {r['largest_logit']:.4f}/{r['mean_logit']:.5f}  AUC {r['auc']:.4f} ({r['auc_change']:+.5f})  worst {r['worst_code']} "
                                  f"-{r['worst_class']:.4f} ({r['worst_positives']})  flips {r['flips']:5}  alone/batch {r['in_batch']:.0e}  {r['speed']:.2f}x", flush=True)
    for k, r in rows.items():
        if "failed" in r: print(f"{k:26s} {r['failed']}")
        else: r["elsewhere"] = k not in OVERFLOW; r["fits"] = bool(r["auc_change"] >= -MACRO and r["worst_class"] <= CLASS and r["promise"] and r["elsewhere"])
    fit = {k: r for k, r in rows.items() if r.get("fits")}; int8 = {k: r for k, r in fit.items() if few_bits(k)}
    top = max((r["speed"] for r in int8.values()), default=0); best = min((k for k, r in int8.items() if r["speed"] > .95*top), key=lambda k: int8[k]["kb"], default=None)
    out = dict(best=best, fits=list(fit), schemes=rows, records=len(ds), decisions=int(len(ds)*len(clf.vocab)), classes_scored=int(scored.sum()), fold=o.fold,
               calibrated_on=len(batches), calibrate_fold=o.calibrate_fold, model=clf.card.sha256[:12], name=clf.card.name, epochs=clf.card.training.get("epochs"),
               onnxruntime=onnxruntime.__version__, onnx=onnx.__version__, torch=torch.__version__, python=platform.python_version(), machine=cpu())
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


def cpu(): # its name and what it can do with 8 bits
    try: text = Path("/proc/cpuinfo").read_text()
    except OSError: return platform.machine()
    name = next((l.partition(":")[2].strip() for l in text.splitlines() if l.startswith("model name")), platform.machine())
    return f"{name}, {'VNNI' if 'vnni' in text else 'no VNNI'}"


if __name__ == "__main__": main()
