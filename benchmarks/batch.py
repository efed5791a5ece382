#!/usr/bin/env python
"""The nightly job from table to table: what it adds to the model's own time, what a second process brings, and how its memory grows with the records.

  python benchmarks/batch.py             everything, memory up to 20,000 records (about 15 minutes on two processors; 2 GB of disk for a while)
  python benchmarks/batch.py --curve 100000 --json benchmarks/batch_memory.json    memory of one job in one process as its records pass (about 12 minutes, 5 GB of disk)
  python benchmarks/batch.py --quick     a few rounds and up to 1,000 records (about 1 minute): the figures are rough

Records: 10 s, 12 leads, 500 Hz, generated, a few hundred of them again and again under new ids; the shipped classifier ptbxl, one thread a process.
share_of_model   records a second of the job (scan, decode, answer, merge, in one process) over those of `Classifier.predict` on the same records, decoded and in memory;
                 share_of_network has the forward pass alone below the line: resampling to 100 Hz and the comparison with the training data then count as overhead
two_processes    records a second of the job with two processes over one, from the first answers to the last: starting a process takes as long for any number of records
                 (4,096 of them here: at the end one of the two waits for the other's last batch)
memory_growth    peak resident memory of all processes of a job with two workers, at the most records over at a tenth of them;
                 one_process_mb is that of a job in one process; libraries that processes share are counted in each

A ratio is the median over rounds, in each of which all sides take a turn. The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")   # before numpy and torch are there
import argparse, json, multiprocessing, platform, shutil, subprocess, sys, tempfile, threading, time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from deltalake import write_deltalake

from arrhythmia_classifier.batch import records_to_batch, row_to_record
from arrhythmia_classifier.core import MissingExtra, write_json
from arrhythmia_classifier.delta import _writer, run_batch
from arrhythmia_classifier.shipped import load_shipped, shipped
from arrhythmia_classifier.synth import synth_records

from timing import Watch, network_code, ratio, turns

BATCH = 32   # records side by side, as `run_batch` has them
GOALS, AT_MOST = dict(two_processes=1.8, share_of_model=.85), dict(memory_growth=1.1)


def by_sail(records, results, model):
    "Records a second of the same function under Sail, from a table to a table."
    from arrhythmia_classifier.spark import run_spark, sail
    with sail() as s: r = run_spark(s, records, results, model, "main.ecg.ptbxl", "1")
    return r["new"]/r["seconds"]


def by_pyspark(records, results, model):
    "The same under PySpark in a JVM, two workers, which have loaded the model before; without Delta's jars, so it reads the table's files and keeps no answers."
    from deltalake import DeltaTable
    from arrhythmia_classifier.spark import answers, spark_session
    jvm = spark_session(spark_master="local[2]", spark_ui_enabled="false", spark_driver_host="127.0.0.1", spark_driver_bindAddress="127.0.0.1"); jvm.sparkContext.setLogLevel("ERROR")
    rows = jvm.read.parquet(*DeltaTable(str(records)).file_uris()).repartition(2); go = lambda rows: answers(rows, model, "main.ecg.ptbxl", "1").toArrow().num_rows
    try: go(rows.limit(64)); begun = time.monotonic(); n = go(rows); return n/(time.monotonic() - begun)
    finally: jvm.stop()


ENGINES = dict(sail=by_sail, pyspark=by_pyspark)   # beside ours, with the extra spark


def engines(table, tmp):
    "Records a second of each that is installed."
    out = {}
    for k, f in ENGINES.items():
        try: out[k] = round(f(table, tmp/k, shipped()["ptbxl"]), 1)
        except MissingExtra as e: print(k, e)
    return out


def make_table(path, some, n, chunk=500):
    "A table of n records: those of the batch `some`, under new ids."
    for a in range(0, n, chunk):
        rows = some.take(pa.array(np.arange(a, min(n, a + chunk)) % some.num_rows))
        rows = rows.set_column(0, "record_id", pa.array([f"R{i:07d}" for i in range(a, a + rows.num_rows)]))
        write_deltalake(str(path), pa.Table.from_batches([rows]), mode="append", writer_properties=_writer)
    return path


def job(records, results, load, workers=1):
    "Seconds and counts of the job on an empty table of results."
    shutil.rmtree(results, ignore_errors=True)
    return run_batch(records, results, load, "main.ecg.ptbxl", "1", BATCH, workers=workers)


def steady(records, tmp, workers):
    "Seconds a record from the first answers to the last ones; when the first batch is there, the other processes are through with theirs too."
    r = job(records, tmp/"steady", shipped()["ptbxl"], workers)
    return (r["last_answer_seconds"] - r["first_answer_seconds"])/(r["new"] - BATCH*workers)


def shares(table, some, tmp, rounds, n):
    "What the job costs beside the model alone, one process; all take turns."
    c = load_shipped(); records = [row_to_record(r) for r in some.to_pylist()]; ready = [c._prepare(r) for r in records]
    again = max(1, n//len(records))
    ways = dict(network=lambda: [c.run(ready[i:i + BATCH]) for _ in range(again) for i in range(0, len(ready), BATCH)],
                model=lambda: [list(c.predict(records)) for _ in range(again)], job=lambda: job(table, tmp/"share", lambda: c))
    t = turns(ways, rounds); per = {k: np.array(v)/(n if k == "job" else again*len(records)) for k, v in t.items()}
    return dict(share_of_model=ratio(per, "model", "job"), share_of_network=ratio(per, "network", "job"), records_per_s={k: round(1/float(np.median(v)), 1) for k, v in per.items()})


def two_processes(table, tmp, rounds):
    "One process and two, taking turns."
    t = dict(one=[], two=[])
    for r in range(rounds):
        for k, w in (("one", 1), ("two", 2))[::1 if r % 2 else -1]: t[k].append(steady(table, tmp, w))
    return dict(two_processes=ratio(t, "one", "two"), records_per_s_of_processes={k: round(1/float(np.median(v)), 1) for k, v in t.items()})


def peak(pid="self"):
    "Peak resident memory of a process so far, MB; 0 where it is gone."
    try: return next(int(l.split()[1]) for l in Path(f"/proc/{pid}/status").read_text().splitlines() if l.startswith("VmHWM"))/1024
    except (OSError, StopIteration): return 0.


def resident(): return round(int(Path("/proc/self/statm").read_text().split()[1])*os.sysconf("SC_PAGE_SIZE")/2**20)


def measured(records, results, workers, every):
    "In a process of its own: the job, with the peaks of all its processes, and its own memory each so many records."
    peaks, over, after, seen = {}, threading.Event(), [], 0
    def watch():
        while not over.wait(.1):
            for p in multiprocessing.active_children(): peaks[p.pid] = max(peaks.get(p.pid, 0), peak(p.pid))
    def note(): # asked after each batch
        nonlocal seen
        seen += BATCH
        if every and seen//every > (seen - BATCH)//every: after.append([seen, resident()]); print(*after[-1], file=sys.stderr, flush=True)
        return False
    threading.Thread(target=watch, daemon=True).start()
    r = run_batch(records, results, shipped()["ptbxl"], "main.ecg.ptbxl", "1", BATCH, workers=workers, stop=note); over.set()
    print(json.dumps(dict(records=r["new"], peak_mb=round(peak() + sum(peaks.values())), parent_mb=round(peak()), workers_mb=[round(v) for v in peaks.values()], seconds=round(r["seconds"], 1)) | (dict(after=[a for a in after if a[0] <= r["new"]]) if every else {})))


def run(table, tmp, workers, every=0):
    shutil.rmtree(tmp/"peak", ignore_errors=True)
    return json.loads(subprocess.run([sys.executable, __file__, "--job", str(table), str(tmp/"peak"), str(workers), str(every)], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def curve(some, tmp, n):
    "Memory of one process as the records pass."
    r = run(make_table(tmp/"all", some, n), tmp, 1, max(BATCH, n//50)); return dict(one_process_mb=r["peak_mb"], records=r["records"], seconds=r["seconds"], memory_after=r["after"])


def memory(some, tmp, most, quick):
    "Peaks at a tenth of the records and more, up to all of them."
    points, one = [], None
    for n in [most//10, most] if quick else [most//10, most//4, most//2, most]:
        table = make_table(tmp/f"t{n}", some, n)
        points.append(run(table, tmp, 2)); one = run(table, tmp, 1) if n == most//10 else one; shutil.rmtree(table); print("memory", points[-1], flush=True)
    return dict(one_process_mb=one["peak_mb"], memory_growth=round(points[-1]["peak_mb"]/points[0]["peak_mb"], 3), memory=points)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--records", type=int, help="the most records of the curve of memory (default 20,000; quick: 1,000)")
    a.add_argument("--fs", type=int, default=500, help="Hz of the records"); a.add_argument("--rounds", type=int, help="default 7, quick: 2")
    a.add_argument("--quick", action="store_true"); a.add_argument("--no-ratios", action="store_true"); a.add_argument("--no-memory", action="store_true")
    a.add_argument("--json", type=Path, help="file for the result"); a.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    a.add_argument("--curve", type=int, help="only memory as so many records pass")
    o = a.parse_args(); torch.set_num_threads(1)
    if o.job: return measured(*o.job[:2], *map(int, o.job[2:]))
    watch, rounds, out = Watch(), o.rounds or (2 if o.quick else 7), {}
    some = records_to_batch(synth_records(64 if o.quick else 256, fs=float(o.fs), seconds=10, seed=1)); n = 512 if o.quick else 2048
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        if o.curve: out |= curve(some, tmp, o.curve)
        if not (o.no_ratios or o.curve):
            table = make_table(tmp/"records", some, n); out |= shares(table, some, tmp, rounds, n); print(out, flush=True)
            out |= dict(engines=engines(table, tmp)); print(out, flush=True)
            out |= two_processes(make_table(tmp/"longer", some, 2*n), tmp, rounds)
        if not (o.no_memory or o.curve): out |= memory(some, tmp, o.records or (1000 if o.quick else 20_000), o.quick)
    out |= dict(fs=o.fs, rounds=rounds, quick=o.quick, cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), others_share=watch.others(), network=network_code(), model=load_shipped().card.sha256[:12], python=platform.python_version(), torch=torch.__version__)
    for k, v in out.items():
        if not isinstance(v, (dict, list)): print(f"{k:20s} {v}{f'  at least {GOALS[k]:g}' if k in GOALS else f'  at most {AT_MOST[k]:g}' if k in AT_MOST else ''}")
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
