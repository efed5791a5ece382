#!/usr/bin/env python
"""The nightly job is killed with SIGKILL again and again, while others ingest and answer: at the end every record has exactly one row of answers.

  python tools/kill.py               20 kills (about two minutes)
  python tools/kill.py --kills 3     the quick form, as CI runs it

Real processes of the command line, a small classifier with random weights, synthetic records. The moments take turns: at any time from the start of a process on;
soon after a commit; between data and commit, where a data file lies there that no commit names yet. In many rounds a second job answers the same table at the same
time, and is killed as well; in every round `arrhythmia ingest` appends more records from a folder, and in every second one it is killed too, and run again later.
Then all is run to its end, by two jobs and two ingests at once, and looked at. The last line is one JSON object; the exit code is 1 unless all is as it must be."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")
import argparse, json, random, signal, subprocess, sys, tempfile, threading, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.delta import ingest, scan_records
from arrhythmia_classifier.labels import vocabulary_of
from arrhythmia_classifier.core import MissingExtra
from arrhythmia_classifier.records import write_record
from arrhythmia_classifier.spark import sail
from arrhythmia_classifier.synth import synth_records

KEY = "record_id", "model_name", "model_version"


def start(root, *args):
    "A command of ours as a process."
    return subprocess.Popen([sys.executable, "-c", "from arrhythmia_classifier.cli import main; main()", *map(str, args)], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def must(*processes):
    "Wait; each has to end well."
    for p in processes:
        err = p.communicate(timeout=300)[1]
        if p.returncode: raise SystemExit(f"{p.args[2:]} ended with {p.returncode}: {err}")


def files(table): return {f.name for f in os.scandir(table) if f.name.endswith(".parquet")}
def commits(table): return sum(1 for f in os.scandir(table/"_delta_log") if f.name.endswith(".json") and not f.name.startswith("_"))


def moment(kind, rng, process, table):
    "Wait for the moment of a kill; whether the process still runs then."
    were, until = commits(table), time.monotonic() + 60
    if kind == "any time": until = time.monotonic() + rng.uniform(0, 8)
    else:
        while process.poll() is None and commits(table) == were and time.monotonic() < until: time.sleep(.002)
        if kind == "after a commit": until = time.monotonic() + rng.uniform(0, .5)
    if kind == "between": return between(process, table, until)
    while process.poll() is None and time.monotonic() < until: time.sleep(.005)
    return process.poll() is None


def between(process, table, until):
    "Let a process run for half a millisecond at a time until it has written data that no commit names; it is left stopped."
    had, were = files(table), commits(table)
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGSTOP); time.sleep(.0002)
        if (now := commits(table)) != were: had, were = files(table), now
        elif files(table) - had: return True
        process.send_signal(signal.SIGCONT); time.sleep(.0005)
    return process.poll() is None


def rows(table, columns): return pa.RecordBatchReader.from_stream(DeltaTable(str(table)).scan(columns=list(columns))).read_all().to_pylist()


def verify(root, model, expected):
    "What is wrong, in words; nothing, if each record has its one answer and the answers are the classifier's."
    wrong, got = [], [tuple(r.values()) for r in rows(root/"answers", KEY)]; there = [r["record_id"] for r in rows(root/"records", ["record_id"])]
    if sorted(there) != sorted(expected): wrong.append(f"{len(there)} rows of records, {len(set(there))} ids, {len(expected)} were ingested")
    if len(got) != len(set(got)): wrong.append(f"{len(got) - len(set(got))} answers twice")
    if {g[0] for g in got} != set(expected) or len({g[1:] for g in got}) != 1: wrong.append(f"{len(set(expected) - {g[0] for g in got})} records without an answer")
    some = [r for r, _ in zip(scan_records(root/"records"), range(200))]; want = {p.record_id: p.probabilities for p in model.predict(some)}
    for r in rows(root/"answers", ["record_id", "probabilities"]):
        if (w := want.get(r["record_id"])) and max(abs(w[c] - p) for c, p in r["probabilities"]) > 1e-5: wrong.append(f"the answer of {r['record_id']} is not the classifier's")
    return wrong


def by_spark(root):
    "Rows that Spark counts through Sail, a server without a JVM; None where it is not installed."
    try:
        with sail() as spark: t = spark.read.format("delta").load(str(root/"answers")); return t.select(*KEY).distinct().count(), t.count()
    except MissingExtra: return None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kills", type=int, default=20); a.add_argument("--seed", type=int, default=0)
    o = a.parse_args(); rng, begun = random.Random(o.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp); base = list(synth_records(24, fs=100, seconds=4, seed=0)); made = 0
        model = Classifier.untrained(vocabulary_of(r.codes for r in base)[0], fs=100, seed=0); model.save(root/"classifier"); expected, folders, more, total = [], [], 0, dict(jobs=0, ingests=0)
        def fresh(n):
            nonlocal made
            for _ in range(n):
                r = replace(base[made % 24], record_id=f"R{made:06d}", signal=np.roll(base[made % 24].signal, made//24, 1)); expected.append(r.record_id); made += 1; yield r
        ingest(fresh(2000), root/"records", chunk=500)
        answer = lambda workers: start(root, "batch", "--records", "records", "--results", "answers", "--model", "classifier", "--chunk", 32, "--workers", workers)
        append = lambda folder: start(root, "ingest", folder, "--table", "records", "--chunk", 16)
        kinds, moments = ("any time", "after a commit", "between"), {}
        p = answer(1)
        while not DeltaTable.is_deltatable(str(root/"answers")) and p.poll() is None: time.sleep(.01)
        p.kill(); p.communicate()
        while total["jobs"] < o.kills or len(moments) < len(kinds):                # each kind of moment at least once
            k = len(folders); folder = root/f"in{len(folders)}"; folder.mkdir(); folders.append(folder)
            for r in fresh(100): write_record(r, folder)
            kind = kinds[k % 3]; jobs = [answer(1 + k % 2)] + ([answer(1)] if rng.random() < .6 and kind != "between" else []); appender = append(folder)
            end = threading.Timer(rng.uniform(.5, 2.5), appender.kill) if k % 2 else threading.Timer(0, lambda: None); end.start()
            alive = moment(kind, rng, jobs[0], root/"answers")
            for p in jobs: alive_now = p.poll() is None; p.kill(); p.communicate(); total["jobs"] += alive_now
            if alive: moments[kind] = moments.get(kind, 0) + 1
            else: ingest(fresh(1000), root/"records", chunk=500)                # it was through before its moment: more work
            end.join()
            if k % 2: appender.communicate(); total["ingests"] += appender.returncode == -signal.SIGKILL
            else: must(appender)
            print(f"kill {total['jobs']:3d}  {kind:15s} {len(rows(root/'answers', ['record_id'])):6d} answers of {len(expected)}", flush=True)
        must(*[start(root, "ingest", f, "--table", "records") for f in folders[-2:]])
        for f in folders[:-2]: ingest([*map(str, sorted(f.glob("*.hea")))], root/"records", quick=True)
        must(answer(1), answer(2)); must(answer(1))
        wrong = verify(root, model, expected); unnamed = len(files(root/"answers") - {Path(u).name for u in DeltaTable(str(root/"answers")).file_uris()})
        spark = by_spark(root)
        if spark is not None and spark != (len(expected),)*2: wrong.append(f"Spark counts {spark}")
        out = dict(kills=total["jobs"], kills_of_ingest=total["ingests"], moments=moments, records=len(expected), commits=commits(root/"answers"), files_without_commit=unnamed,
                   read_by_spark=spark is not None, wrong=wrong[:10], seconds=round(time.monotonic() - begun))
    print(json.dumps(out)); sys.exit(bool(wrong))


if __name__ == "__main__": main()
