#!/usr/bin/env python
"""The thread trap: with a busy neighbour, PyTorch on several threads waits for a thread that has no processor, thousands of times a record.

  python benchmarks/threads.py           about 3 minutes
  python benchmarks/threads.py --quick   about 1 minute

The full-size network, records of 10 s at 500 Hz, one at a time; quiet, and with a busy loop beside (a process that computes without end). Ways:
  predict    `Classifier.predict`, as a user's program calls it without setting anything
  threads_1  the network with torch set to one thread
  threads_n  the network with torch set to as many threads as there are processors, which is torch's own default
  command    `arrhythmia predict` on a folder of records, a process from start to end
`seen` is how many threads torch had while the network ran, in each place that calls it: Classifier.predict, the job's `predictor`, the MLflow model,
and each of these in a thread of a server. 1 everywhere means that none can fall into the trap.

Needs the package. The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(ARRHYTHMIA_QUIET="1", MLFLOW_DISABLE_TELEMETRY="true")
for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"): os.environ.pop(k, None)   # what a user has who sets nothing
import argparse, json, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from arrhythmia_classifier.batch import RECORDS, predictor, record_to_row
from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.labels import Label, Vocabulary
from arrhythmia_classifier.model import ModelConfig, WFDBResNetLSTM
from arrhythmia_classifier.synth import synth_records, write_synth

from timing import Watch, neighbour, network_code, seconds

CORES, DEFAULT = os.cpu_count(), torch.get_num_threads()
SHARE = .4   # of the quiet speed that a default must keep beside a busy loop: half is fair on two processors, and the trap leaves a tenth or less


def classifier():
    torch.manual_seed(0)
    return Classifier.from_model(WFDBResNetLSTM(ModelConfig(71)), Vocabulary([Label(str(k), f"C{k}", f"class {k}") for k in range(71)]))


def network_with(c, threads):
    "The network alone, with torch set to so many threads."
    def run(record):
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode(): c.network(torch.from_numpy(record.signal[None]), torch.tensor([record.signal.shape[1]]))
        finally: torch.set_num_threads(DEFAULT)
    return run


def measure(ways, records, rounds):
    "Seconds of each record, in turns, quiet and beside a busy loop: `{way: {quiet, busy}}`."
    took = {k: dict(quiet=[], busy=[]) for k in ways}
    for k in ways: ways[k](records[0])
    for _ in range(rounds):
        for state, beside in (("quiet", nullcontext), ("busy", neighbour)):
            with beside():
                for k, f in ways.items(): took[k][state] += [seconds(lambda: f(r)) for r in records]
    return took


def command(folder, model, rounds, records):
    "Seconds of a whole `arrhythmia predict` of the folder."
    code = "from arrhythmia_classifier.cli import main; main()"
    run = lambda: subprocess.run([sys.executable, "-c", code, "predict", str(folder), "--model", str(model)], check=True, capture_output=True, text=True).stdout
    took = dict(quiet=[], busy=[])
    if len(run().splitlines()) != records: sys.exit("arrhythmia predict did not answer every record")
    for _ in range(rounds):
        for state, beside in (("quiet", nullcontext), ("busy", neighbour)):
            with beside(): took[state].append(seconds(run))
    return took


def seen(c, record):
    "Threads that torch has while the network runs, for each caller, here and in a server's thread."
    inside, network = [], c.network
    def spy(*a): inside.append(torch.get_num_threads()); return network(*a)
    c.network = spy
    import pandas as pd, pyarrow as pa
    from arrhythmia_classifier.pyfunc import ECGModel
    row = record_to_row(record); served = ECGModel(); served.classifier = c
    calls = dict(predict=lambda: list(c.predict([record])), batch=lambda: list(predictor(lambda: c, "m", "1")([pa.RecordBatch.from_pylist([row], schema=RECORDS)])),
                 pyfunc=lambda: served.predict(SimpleNamespace(artifacts={}), pd.DataFrame([row])))
    out = {}
    try:
        for name, call in calls.items():
            inside.clear(); call(); out[name] = max(inside)
            inside.clear()
            with ThreadPoolExecutor(1) as pool: pool.submit(call).result()
            out[f"{name}_in_thread"] = max(inside)
    finally: c.network = network
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--quick", action="store_true", help="few rounds"); a.add_argument("--json", type=Path, help="file for the result")
    o = a.parse_args(); rounds, n = (2, 4) if o.quick else (5, 8); watch, c = Watch(), classifier()
    records = list(synth_records(n, fs=500., seconds=10., seed=1))
    took = measure(dict(predict=lambda r: list(c.predict([r])), threads_1=network_with(c, 1), threads_n=network_with(c, CORES)), records, rounds)
    out = dict(processors=CORES, torch_default_threads=DEFAULT, seen=seen(c, records[0]))
    with tempfile.TemporaryDirectory() as tmp:
        c.save(Path(tmp)/"classifier"); write_synth(Path(tmp)/"records", 8*n, fs=500, seconds=10, seed=2)
        took["command"] = command(Path(tmp)/"records", Path(tmp)/"classifier", rounds, 8*n)
    for k, t in took.items():
        of = 8*n if k == "command" else 1
        for state in t: out |= {f"{k}_{state}_records_per_s": round(of/float(np.median(t[state])), 2), f"{k}_{state}_worst_s": round(max(t[state])/of, 3)}
        out[f"{k}_keeps"] = round(float(np.median(t["quiet"])/np.median(t["busy"])), 3)
    out |= dict(predict_vs_threads_n_busy=round(float(np.median(took["threads_n"]["busy"])/np.median(took["predict"]["busy"])), 1),
                others_share=watch.others(), network=network_code(), torch=torch.__version__)
    out["default_is_safe"] = set(out["seen"].values()) == {1} and all(out[f"{k}_keeps"] >= SHARE for k in ("predict", "command"))
    for k, v in out.items(): print(f"{k:34s} {v}")
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
