"""The nightly job on three engines over the same records, and training in two processes: python tools/engines.py [--records 500] [--only engines|processes]

1. `delta.run_batch`; PySpark in a JVM (`mapInArrow` over the table's Parquet files, merged by the driver, because plain Spark reads no Delta); Sail (`spark.run_spark`:
   Delta in, SQL MERGE out). Equal row for row, the classifier loaded once a process. The registered model through `mlflow.pyfunc.spark_udf` says the same.
2. `arrhythmia train` under torchrun and `jobs.train_job` under TorchDistributor: one epoch in two processes, one classifier registered each, the same weights.
Needs Java 17 and `pip install 'arrhythmia_classifier[spark]'`. Times are printed, not tested."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1", MLFLOW_DISABLE_TELEMETRY="true")
def alone(): # MLflow leaves its address in the environment, where a second registry would find it
    for k in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "SPARK_REMOTE"): os.environ.pop(k, None)

alone()
import argparse, logging, subprocess, sys, tempfile, time, warnings
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa

from arrhythmia_classifier.batch import PREDICTIONS, RECORDS, records_to_batch
from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.delta import DeltaTable, merge_predictions, open_table, run_batch, write_deltalake
from arrhythmia_classifier.jobs import TrainSettings, train_job
from arrhythmia_classifier.labels import vocabulary_of
from arrhythmia_classifier.spark import answers, ddl, distribute, pending, run_spark, sail, spark_session
from arrhythmia_classifier.synth import synth_records, write_synth
from arrhythmia_classifier.tracking import Home, load_classifier, log_training

warnings.filterwarnings("ignore")
NAME = "main.ecg.classifier"
LOCAL = dict(spark_master="local[2]", spark_ui_enabled="false", spark_driver_host="127.0.0.1", spark_driver_bindAddress="127.0.0.1", spark_sql_shuffle_partitions="2")


def counted(folder, log): # a loader that leaves the number of its process
    with open(log, "a") as f: f.write(f"{os.getpid()}\n")
    return Classifier.load(folder)


def loads(log):
    n = Counter(Path(log).read_text().split()); assert max(n.values()) == 1, f"loaded more than once in a process: {n}"
    return len(n)


def make_records(home, n):
    "A table of good records, of three rates and lengths, and of rows that can't be used; a small classifier."
    good = [r for k, (fs, s) in enumerate(((100, 2), (250, 3), (500, 2))) for r in synth_records(n//3 + (k < n % 3), fs=fs, seconds=s, seed=k)]
    rows = records_to_batch(good).to_pylist()
    for k, r in enumerate(rows): r["record_id"] = f"R{k:05d}"
    bad = lambda name, **kw: {**rows[0], "record_id": name, **kw}
    odd = [bad("cut", signal=rows[0]["signal"][:-1]), bad("strange", leads=["ECG1"]*12), bad("short", signal=rows[0]["signal"][:12*20], n_samples=10), bad("no_fs", fs=None),
           bad("lost", reason="unreadable", detail="lost.mat is missing", signal=None), bad("empty", signal=None), bad("flat", signal=bytes(len(rows[0]["signal"]))), bad(None), dict(rows[1])]
    every = rows[:n//2] + odd + rows[n//2:]; open_table(home/"ecg_records", RECORDS)
    for s in range(0, len(every), 128): write_deltalake(str(home/"ecg_records"), pa.Table.from_pylist(every[s:s + 128], RECORDS), mode="append")
    vocab, _ = vocabulary_of(r.codes for r in good); c = Classifier.untrained(vocab, fs=100, seed=0); c.save(home/"model")
    return c, {r["record_id"] for r in rows + odd} - {None}


def rows_of(place): return {r["record_id"]: r for r in pa.table(DeltaTable(str(place)).scan()).to_pylist()}


def same(name, a, b):
    assert a.keys() == b.keys(), (name, len(a), len(b)); worst = 0.
    for i, x in a.items():
        y, p, q = b[i], dict(x["probabilities"] or ()), dict(b[i]["probabilities"] or ())
        assert all((x[k] or "") == (y[k] or "") for k in ("status", "reason", "detail", "labels", "model_name", "model_version") if k in y), (name, x, y)
        assert p.keys() == q.keys(); worst = max([worst, *(abs(p[c] - q[c]) for c in p)])
    assert worst <= 1e-6, (name, worst)
    return worst


def engines(home, n):
    c, ids = make_records(home, n); took = {}; table = home/"ecg_records"
    def timed(name, job): t = time.time(); out = job(); took[name] = round(time.time() - t, 1); return out
    load = lambda name: partial(counted, home/"model", home/f"{name}.loads")
    local = timed("local", lambda: run_batch(table, home/"local", load("local"), NAME, "1")); want = rows_of(home/"local")
    assert want.keys() == ids and len({r["reason"] for r in want.values()}) >= 5, Counter(r["reason"] for r in want.values())
    counts = lambda r: {k: v for k, v in r.items() if not k.endswith("seconds")}

    with sail() as spark: got = timed("sail", lambda: run_spark(spark, table, home/"sail", load("sail"), NAME, "1"))
    assert counts(got) == counts(local), (got, local)
    print(f"sail: {len(ids)} rows, largest difference {same('sail', want, rows_of(home/'sail')):.1e}, {loads(home/'sail.loads')} processes", flush=True)

    jvm = timed("jvm start", lambda: spark_session(**LOCAL)); jvm.sparkContext.setLogLevel("ERROR")
    rows = jvm.read.parquet(*DeltaTable(str(table)).file_uris()); none = jvm.createDataFrame([], ddl(PREDICTIONS))
    out = timed("pyspark", lambda: answers(pending(rows, none, NAME, "1"), load("pyspark"), NAME, "1").toArrow().cast(PREDICTIONS))
    open_table(home/"pyspark", PREDICTIONS); assert merge_predictions(home/"pyspark", out) == len(ids)
    print(f"pyspark: {len(ids)} rows, largest difference {same('pyspark', want, rows_of(home/'pyspark')):.1e}, {loads(home/'pyspark.loads')} processes", flush=True)
    left = pending(rows, jvm.createDataFrame(out.slice(0, 50)), NAME, "1").select("record_id").distinct().count(); assert left == len(ids) - 50, left

    h = Home(home/"home"); info = log_training(h, c)
    kinds = "record_id string, status string, reason string, detail string, labels array<string>, probabilities map<string,double>, unlike double, warning string"
    udf = h.mlflow().pyfunc.spark_udf(jvm, info["uri"], env_manager="local", result_type=kinds)
    asked = rows.where("record_id < 'R00006' OR record_id = 'cut'").dropDuplicates(["record_id"]).selectExpr("struct(record_id, fs, leads, signal, uv_per_lsb) AS r")
    said = {r["record_id"]: r for r in timed("spark_udf", lambda: asked.select(udf("r").alias("a")).select("a.*").toArrow()).to_pylist()}
    assert len(said) >= 6 and said["cut"]["reason"] == "unreadable"; same("spark_udf", {i: want[i] for i in said}, said); print(f"spark_udf: {len(said)} rows")
    print("seconds:", took); return jvm


def processes(home, jvm=None):
    alone(); data = home/"wfdb"; write_synth(data, 60, fs=100, seconds=2, seed=3); h = Home(home/"ddp")
    s = dict(size="small", epochs=1, batch_size=8, min_count=5, split="tenth", crop=None, augment=False)
    flags = [f for k, v in s.items() for f in ([f"--no-{k}"] if v is False else [f"--{k.replace('_', '-')}", str(v or 0)])]
    begun = time.time()
    cmd = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", "--", sys.executable, "-c", "from arrhythmia_classifier.cli import main; main()"]
    r = subprocess.run([*cmd, "train", str(data), *flags, "--run", str(home/"run1"), "--home", str(h.path)], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stderr[-3000:]
    one = load_classifier(h, NAME, "challenger"); assert one.card.version == "1" and one.card.training["processes"] == 2 and one.card.training["epochs"] == 1
    print(f"torchrun: version {one.card.version}, {one.card.training['processes']} processes, {time.time() - begun:.0f} s", flush=True); begun = time.time()
    jvm = jvm or spark_session(**LOCAL)
    done = distribute(train_job, TrainSettings(data=str(data), **s), home/"run2", h, processes=2)
    two = load_classifier(h, NAME, "challenger"); assert done["version"] == two.card.version == "2" and two.card.training["processes"] == 2
    p, q = ([a.probabilities for a in c.predict(synth_records(5, fs=100, seconds=2, seed=9))] for c in (one, two))
    worst = max(abs(a[k] - b[k]) for a, b in zip(p, q) for k in a); assert worst < 1e-5, worst
    print(f"TorchDistributor: version {two.card.version}, {two.card.training['processes']} processes, {time.time() - begun:.0f} s, largest difference from torchrun {worst:.1e}")


def main(records, only):
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as d:
        home = Path(d).resolve(); jvm = engines(home, records) if only != "processes" else None
        if only != "engines": processes(home, jvm)


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0]); a.add_argument("--records", type=int, default=500); a.add_argument("--only", choices=["engines", "processes"])
    main(**vars(a.parse_args()))
