#!/usr/bin/env python
"""A Holter recording of 24 hours at 500 Hz, 12 leads, from the file to a time line of findings: time and peak memory.

  python benchmarks/holter.py                        a small untrained classifier, 24 h
  python benchmarks/holter.py --model FOLDER --hours 2

The recording is generated piece by piece and written as format 16. The last line is one JSON object."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")  # before numpy and torch are there
import argparse, json, resource, tempfile, time
from pathlib import Path

import numpy as np
import torch

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.core import LEADS, write_json
from arrhythmia_classifier.labels import CHALLENGE
from arrhythmia_classifier.synth import synth_record
from arrhythmia_classifier.timeline import predict_timeline

from timing import network_code


def write_day(folder, hours, fs=500):
    "A record of `hours`, ten different minutes over and over, written minute by minute."
    minutes = [np.rint(synth_record(codes, fs=fs, seconds=60, seed=k).signal*1000).clip(-32767, 32767).astype("<i2").T.tobytes() for k, codes in enumerate([["426783006"]]*7 + [["164889003"]]*3)]
    n = int(hours*60)
    with open(folder/"day.dat", "wb") as f:
        for k in range(n): f.write(minutes[k % 10])
    (folder/"day.hea").write_text(f"day 12 {fs} {n*60*fs}\n" + "".join(f"day.dat 16 1000/mV 16 0 0 0 0 {l}\n" for l in LEADS))
    return n*60*fs


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--hours", type=float, default=24.); a.add_argument("--model", type=Path, help="folder of a classifier"); a.add_argument("--hop", type=float, default=5.)
    a.add_argument("--json", type=Path, help="file for the result")
    o = a.parse_args(); torch.set_num_threads(1)
    clf = Classifier.load(o.model) if o.model else Classifier.untrained(CHALLENGE, fs=100.)
    with tempfile.TemporaryDirectory() as tmp:
        samples = write_day(Path(tmp), o.hours); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
        begun = time.perf_counter(); t = predict_timeline(clf, Path(tmp)/"day", hop=o.hop); took = time.perf_counter() - begun
        size = (Path(tmp)/"day.dat").stat().st_size/1e6
    out = dict(hours=o.hours, samples_a_lead=samples, file_mb=round(size), cells=len(t.probabilities), episodes=len(t.episodes()), seconds=round(took, 1), times_real_time=round(3600*o.hours/took),
               peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024), before_mb=round(before), classes=len(clf.vocab), model=f"{clf.card.name}, trained" if o.model else "small, untrained", network=network_code())
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
