#!/usr/bin/env python
"""How fast records are read, packed and batched: both sides of a ratio in one run, medians, one CPU thread.

  python benchmarks/reading.py                       512 generated records, 12 x 5000 at 500 Hz, Challenge .mat form
  python benchmarks/reading.py --data DIR            the WFDB records of a folder
  python benchmarks/reading.py --packing DIR         this folder for the packing figure, e.g. the 19,601 of PTB-XL that
                                                     ../shared/ecg/unpack_ptbxl.py DIR writes

read: path -> `Record` (float32 mV, standard leads, what was repaired); packed: a pack's row -> float32 mV; packed_record: -> `Record`;
pipeline: pack -> padded batches of 64, each lead with zero mean and unit deviation; _int16: the steps and their gains, as they go to a GPU;
_augmented: with noise, wander and lost leads, then as pipeline; _millivolt: what our network takes; _compact: that from the compact pack.

Needs the package and its core dependencies, no GPU. The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")  # before numpy and torch are there
import argparse, io, json, platform, shutil, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import wfdb

from arrhythmia_classifier.collate import Loader, plan_epoch, standardise
from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.dataset import Augment
from arrhythmia_classifier.labels import Label, Vocabulary
from arrhythmia_classifier.pack import Pack, file_of, pack
from arrhythmia_classifier.packed import PackedDataset, PackEntries
from arrhythmia_classifier.records import read_record
from arrhythmia_classifier.steps import squeeze, unsqueeze
from arrhythmia_classifier.synth import write_synth

GOALS = dict(read_vs_wfdb=15, packed_vs_wfdb=100, pipeline_records_per_s=7500, pipeline_int16_records_per_s=30000, pipeline_augmented_records_per_s=3000)
AT_MOST = dict(padded_share=.05, pack_peak_mb=1000, epoch_memory_growth_mb=10)


def seconds(f):
    t = time.perf_counter(); f()
    return time.perf_counter() - t


def reading(paths, p, rows, rounds):
    "Median seconds a record of each way; the ways take turns, each going through all records as a user's loop does."
    ways = dict(wfdb=lambda f, row: wfdb.rdrecord(f[:-4], return_res=32), read=lambda f, row: read_record(f), packed=lambda f, row: p.signal(row),
                packed_record=lambda f, row: p.record(row))
    times = {k: [] for k in ways}
    for k in range(rounds + 1):
        for name, way in ways.items():
            took = [seconds(lambda: way(f, row)) for f, row in zip(paths, rows)]
            if k: times[name] += took                                            # the first round warms up
    return {k: float(np.median(v)) for k, v in times.items()}


def pipelines(ways, rounds, batch=64):
    "Median records a second of each `(dataset, what is done with a batch)`; the ways take turns."
    rates = {k: [] for k in ways}
    for r in range(rounds + 1):
        for name, (ds, then) in ways.items():
            n, t = 0, time.perf_counter()
            for b in Loader(ds, batch, True).batches(r): then(b); n += len(b.record_id)
            if r: rates[name].append(n/(time.perf_counter() - t))
    return {k: round(float(np.median(v))) for k, v in rates.items()}


def compact(signals):
    "Size and speed of the compact form, with FLAC at its side."
    import soundfile
    def flac(q):
        files = [io.BytesIO(), io.BytesIO()]                                   # FLAC has at most eight channels
        for f, part in zip(files, (q[:8], q[8:])): soundfile.write(f, part.T, 500, format="FLAC", subtype="PCM_16")
        return [f.getvalue() for f in files]
    unflac = lambda data: np.concatenate([soundfile.read(io.BytesIO(d), dtype="int16")[0].T for d in data])
    out = {}
    for name, squash, back in (("compact", squeeze, lambda d, n: unsqueeze(d, n, np.int16)), ("flac", flac, lambda d, n: unflac(d))):
        data = [squash(q) for q in signals]
        assert all(np.array_equal(back(d, q.shape[1]), q) for d, q in zip(data, signals))
        out[f"{name}_size"] = round(sum(len(d) if isinstance(d, bytes) else sum(map(len, d)) for d in data)/sum(q.nbytes for q in signals), 3)
        out[f"{name}_write_us"] = round(1e6*float(np.median([seconds(lambda: squash(q)) for q in signals])))
        out[f"{name}_read_us"] = round(1e6*float(np.median([seconds(lambda: back(d, q.shape[1])) for d, q in zip(data, signals)])))
    return out


def padded_share(batch=64, n=88_253):
    "Share of a batch that is padding, on about the lengths of the Challenge 2021; the worst of three epochs, and in random batches."
    rng = np.random.default_rng(0); kind = rng.random(n)
    mix = np.select([kind < .874, kind < .994], [10, rng.uniform(6, 60, n)], rng.uniform(32, 120, n))
    share = lambda batches: float(1 - mix.sum()/sum(len(b)*mix[b].max() for b in batches))
    return dict(padded_share=round(max(share(plan_epoch(mix, batch, np.random.default_rng(s))) for s in range(3)), 4),
                padded_share_at_random=round(share(np.array_split(rng.permutation(n), n//batch)), 3))


def tree_mb(pid):
    "Memory of a process and its children in MB, shared pages counted once (PSS)."
    try:
        kids = [int(k) for t in Path(f"/proc/{pid}/task").iterdir() for k in (t/"children").read_text().split()]
        pss = next(int(l.split()[1]) for l in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if l.startswith("Pss:"))/1024
    except (OSError, StopIteration): return 0.
    return pss + sum(map(tree_mb, kids))


def packing(src, dest, workers):
    "Pack in a fresh process and watch its memory; then once more, when nothing is left to do."
    code = "import sys; from arrhythmia_classifier.pack import pack; print(len(pack(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]) or None)))"
    run = lambda: subprocess.Popen([sys.executable, "-c", code, str(src), str(dest), str(workers)], stdout=subprocess.PIPE, text=True)
    t, child, peak = time.perf_counter(), run(), 0.
    while child.poll() is None: peak = max(peak, tree_mb(child.pid)); time.sleep(.05)
    if child.returncode: sys.exit("packing failed")
    took, n = time.perf_counter() - t, int(child.stdout.read())
    again = seconds(lambda: run().communicate())
    return dict(pack_records=n, pack_workers=workers or os.cpu_count(), pack_s=round(took, 1), pack_again_s=round(again, 1), pack_records_per_s=round(n/took), pack_peak_mb=round(peak) or None,
                pack_mb=round(sum(f.stat().st_size for f in Path(dest).rglob("*") if f.is_file())/1e6))


def own_mb(): # memory of this process that is not a mapped file
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))/1024


def repeated(p, folder, n):
    "The pack again, its index repeated to n rows over the same samples."
    shutil.copytree(p.folder, folder)
    rows = np.flatnonzero(p.usable[:len(p)]); t = pa.ipc.open_file(pa.memory_map(str(p.folder/"index.arrow"))).read_all()
    with pa.OSFile(str(folder/"index.arrow"), "wb") as f, pa.ipc.new_file(f, t.schema) as w:
        w.write_table(t.take(pa.array(rows[np.arange(n) % len(rows)])).combine_chunks(), max_chunksize=n)
    write_json(folder/"meta.json", p.meta | dict(records=n, index=file_of(folder/"index.arrow")))


def long_epoch(folder, vocab, fs):
    "One shuffled epoch; memory at twenty places of it."
    t = time.perf_counter(); p = Pack(folder); opened = time.perf_counter() - t
    loader, seen, marks = Loader(PackedDataset(p, vocab, fs), 64, True), 0, []
    for b in loader.batches():
        seen += len(b.record_id) + len(b.rejected)
        if seen >= len(p)*(len(marks) + 1)/20: marks.append(own_mb())
    return dict(epoch_records=seen, epoch_open_s=round(opened, 2), epoch_s=round(time.perf_counter() - t, 1), epoch_memory_mb=round(marks[0]),
                epoch_memory_growth_mb=round(max(marks[1:]) - marks[0], 1))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", type=Path, help="folder of WFDB records; without it, records are generated")
    a.add_argument("--packing", type=Path, help="folder for the packing figure; without it, that of the others")
    a.add_argument("--workers", type=int, default=0, help="processes that pack (default: one for each processor)")
    a.add_argument("--rounds", type=int, default=7, help="how often everything is measured (default 7)")
    a.add_argument("--epoch", type=int, default=1_000_000, help="records of the long epoch (default 1,000,000; 0 leaves it out)")
    a.add_argument("--json", type=Path, help="file for the result")
    o = a.parse_args(); torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); src = o.data or tmp/"generated"
        if not o.data: print("generating 512 records …", flush=True); write_synth(src, 512, fs=500, seconds=10, seed=1)
        p = pack(src, tmp/"pack"); good = p.usable[:len(p)]; print(p, flush=True)
        fs = max((n, f) for f, n in Counter(p.fs[:len(p)][good].tolist()).items())[1]; rows = np.flatnonzero(good & (p.fs[:len(p)] == fs))
        where = p.column["read_from"].take(rows).to_pylist(); vocab = Vocabulary([Label("426783006", "SR", "sinus rhythm")])
        pick = [k for k in np.linspace(0, len(rows) - 1, min(40, len(rows))).astype(int) if readable(where[k])]
        t = reading([where[k] for k in pick], p, rows[pick], o.rounds)
        out = dict(records=len(rows), fs=fs, samples=int(np.median(p.samples[rows])), wfdb_ms=round(1e3*t["wfdb"], 3), read_ms=round(1e3*t["read"], 4), packed_ms=round(1e3*t["packed"], 4),
                   packed_record_ms=round(1e3*t["packed_record"], 4),
                   read_vs_wfdb=round(t["wfdb"]/t["read"], 1), packed_vs_wfdb=round(t["wfdb"]/t["packed"], 1), packed_record_vs_wfdb=round(t["wfdb"]/t["packed_record"], 1))
        some = PackEntries(p, rows[:2048]); ds = lambda **kw: PackedDataset(some, vocab, fs, **kw)
        kept = lambda b: b
        rates = pipelines(dict(mv=(ds(), kept), z=(ds(), standardise), int16=(ds(raw=True), kept), augmented=(ds(augment=Augment()), standardise),
                               compact=(PackedDataset(PackEntries(pack(src, tmp/"small", compact=True), rows[:2048]), vocab, fs), kept)), o.rounds)
        out |= dict(pipeline_records_per_s=rates["z"], pipeline_augmented_records_per_s=rates["augmented"], pipeline_int16_records_per_s=rates["int16"],
                    pipeline_millivolt_records_per_s=rates["mv"], pipeline_compact_records_per_s=rates["compact"])
        out |= compact([x for x, gain in map(p.steps, rows[:200]) if gain is not None]) | padded_share()
        if o.epoch and Path("/proc/self/status").exists():
            repeated(p, tmp/"long", o.epoch); out |= long_epoch(tmp/"long", vocab, fs)
        out |= packing(o.packing or src, tmp/"again", o.workers)
    out |= dict(threads=torch.get_num_threads(), python=platform.python_version(), torch=torch.__version__, wfdb=wfdb.__version__, numpy=np.__version__)
    for k, v in out.items():
        goal = f"  at least {GOALS[k]:,}" if k in GOALS else f"  at most {AT_MOST[k]:g}" if k in AT_MOST else ""
        print(f"{k:36s} {v if isinstance(v, str) or v is None else format(v, ',')}{goal}")
    if o.json: o.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(out))


def readable(path): # by wfdb too, which refuses what we repair
    try: wfdb.rdrecord(path[:-4], return_res=32); return True
    except Exception: return False


if __name__ == "__main__": main()
