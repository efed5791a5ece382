"""Serve a classifier with MLflow on the loopback and ask it over HTTP, as a hospital's program would: python tools/serve.py [CLASSIFIER] [--clients 50]

It fails unless good records are answered as by `Classifier.predict`, a damaged record costs its own row and says why, a wrong request gets 400, and
as many clients at once as were asked for all get the right answers. The server and all its children are ended at the end, whatever happened."""
import argparse, base64, json, os, signal, socket, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from arrhythmia_classifier.batch import records_to_batch
from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.shipped import load_shipped
from arrhythmia_classifier.synth import synth_records
from arrhythmia_classifier.tracking import Home, log_training

COLUMNS = ["record_id", "fs", "leads", "signal", "uv_per_lsb"]


def rows_of(records): # as JSON: the signal in base64
    rows = records_to_batch(records).select(COLUMNS).to_pylist()
    return [r | dict(signal=base64.b64encode(r["signal"]).decode()) for r in rows]


def check(answers, want): # of the server; of Classifier.predict
    assert [a["record_id"] for a in answers] == [w.record_id for w in want], answers
    for a, w in zip(answers, want):
        assert (a["status"], a["labels"]) == (w.status, w.labels), (a, w)
        off = max(abs(v - w.probabilities[k]) for k, v in a["probabilities"].items()); assert off < 1e-3, (w.record_id, off)


def start(home, uri, folder): # -> process, address; the environment is the one a careful administrator would choose
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", MLFLOW_TRACKING_URI=home.tracking_uri, MLFLOW_REGISTRY_URI=home.registry_uri,
               MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false", MLFLOW_DISABLE_TELEMETRY="true", OMP_NUM_THREADS="1")
    log = open(folder/"server.log", "wb")
    p = subprocess.Popen([sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "-w", "1"], env=env, cwd=folder,
                         stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    return p, f"http://127.0.0.1:{port}"


def members(group): # processes of a process group, from /proc: those that are gone or only wait to be reaped do not count
    found = []
    for f in Path("/proc").glob("[0-9]*/stat"):
        try: state, _, pgrp = f.read_text().rpartition(")")[2].split()[:3]
        except OSError: continue
        if int(pgrp) == group and state != "Z": found.append(int(f.parent.name))
    return found


def stop(p): # the server with all its children; none may be left
    for sig, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try: os.killpg(p.pid, sig)
        except ProcessLookupError: pass
        end = time.monotonic() + wait
        while time.monotonic() < end:
            p.poll()
            if not members(p.pid): return
            time.sleep(.1)
    raise SystemExit(f"processes of the server are left: {members(p.pid)}")


def ask(url, **body): return requests.post(f"{url}/invocations", json=body, timeout=120)


def strict(text): # JSON as a program in another language reads it: without NaN
    def no(word): raise ValueError(f"{word} is no JSON")
    return json.loads(text, parse_constant=no)["predictions"]


def main(folder, clients):
    with tempfile.TemporaryDirectory() as d:
        home = Home(Path(d)/"home"); c = Classifier.load(folder) if folder else load_shipped(); uri = log_training(home, c)["uri"]
        records = list(synth_records(12, fs=c.fs, seconds=(4, 8), seed=5)); rows, want = rows_of(records), list(c.predict(records))
        p, url = start(home, uri, Path(d))
        try:
            begun = time.monotonic()
            while True:
                if p.poll() is not None or time.monotonic() - begun > 300: sys.exit("the server did not come up:\n" + (Path(d)/"server.log").read_text()[-3000:])
                try:
                    if requests.get(f"{url}/ping", timeout=5).status_code == 200: break
                except (requests.ConnectionError, requests.Timeout): time.sleep(.3)
            up = time.monotonic() - begun
            r = ask(url, dataframe_records=rows, params=dict(batch_size=4)); assert r.status_code == 200, r.text[:500]; check(strict(r.text), want)
            r = ask(url, dataframe_records=[row | dict(fs=int(row["fs"])) for row in rows]); assert r.status_code == 200, r.text[:500]; check(strict(r.text), want)    # 100 is 100.0
            broken = [dict(rows[0], signal=rows[0]["signal"][:-4]), dict(rows[1], leads=["X", "Y"]), rows[2], dict(rows[3], fs=None)]
            r = ask(url, dataframe_records=broken); assert r.status_code == 200, r.text[:500]
            got = [(a["status"], a["reason"]) for a in strict(r.text)]
            assert [s for s, _ in got] == ["rejected", "rejected", "ok", "rejected"] and all(why for s, why in got if s == "rejected"), got
            wrong = dict(no_fs=dict(dataframe_records=[{k: v for k, v in rows[0].items() if k != "fs"}]), text_fs=dict(dataframe_records=[dict(rows[0], fs="fast")]), nothing=dict(), other=dict(inputs=[1, 2]))
            codes = {k: ask(url, **body).status_code for k, body in wrong.items()}; assert set(codes.values()) == {400}, codes
            assert requests.post(f"{url}/invocations", data="{", headers={"Content-Type": "application/json"}, timeout=60).status_code == 400
            def one(k): i = k % len(rows); r = ask(url, dataframe_records=[rows[i]]); assert r.status_code == 200, r.text[:300]; check(strict(r.text), [want[i]])
            begun = time.monotonic()
            with ThreadPoolExecutor(clients) as pool: list(pool.map(one, range(2*clients)))
            print(f"serve: up after {up:.0f} s, {len(rows)} records as by predict, rejected rows {got}, wrong requests {codes}, {2*clients} requests of {clients} clients right in {time.monotonic() - begun:.1f} s")
        finally: stop(p)
        print("serve: the server and its children are gone")


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0]); a.add_argument("classifier", nargs="?", type=Path); a.add_argument("--clients", type=int, default=50)
    o = a.parse_args(); main(o.classifier, o.clients)
