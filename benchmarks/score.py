#!/usr/bin/env python
"""A classifier of PTB-XL's statements by the protocol of the published benchmark (Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989), on fold 9.

  python benchmarks/score.py --data PTBXL                        the shipped classifier; PTB-XL as a pack or a folder
  python benchmarks/score.py --data PTBXL --model FOLDER --fold 9 --json FILE

Six tasks. A record takes part in a task if it has one of its statements, whatever their likelihood; macro ROC-AUC over the task's classes that have both sides there;
90 % intervals by 1,000 resamples of the records, drawn until every class has a record, as in the benchmark. The benchmark trains one network a task; here
one network of all statements answers them all: a subclass or superclass is as likely as the likeliest of its statements. `resampled_patients`: the interval
that `arrhythmia evaluate` gives, which draws patients and leaves out a class that a draw happens to lack. `snomed`: the decisions as SNOMED-CT codes.
`halves`: what was fitted on one random half of the patients, checked on the other, twenty times: calibration (expected calibration error and Brier score, before and
after), decisions at fitted thresholds, and the rule that abstains at a risk of 0.1 (share of findings missed, of others called, and of decisions that it makes).
The last line is one JSON object."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")
import argparse, json, time
from pathlib import Path

import numpy as np

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.conformal import ABSENT, PRESENT, UNCERTAIN, Conformal
from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.decide import Calibration, Thresholds, calibration_errors, sigmoid
from arrhythmia_classifier.labels import SCP_TASKS, Vocabulary, scp_vocabulary
from arrhythmia_classifier.metrics import evaluate, ranking
from arrhythmia_classifier.pack import is_pack
from arrhythmia_classifier.shipped import load_shipped
from arrhythmia_classifier.sources import open_corpus


def of_task(z, vocab, task):
    "Scores `(N, C)` of a task's classes from those of all statements."
    return np.stack([z[:, [vocab.index(c) for c in l.codes if vocab.index(c) is not None]].max(1) for l in task], 1)


def interval(y, s, n, rng):
    "Macro AUC and its 90 % interval by the benchmark's bootstrap."
    keep = np.flatnonzero((y > .5).any(0) & (y < .5).any(0)); y, s = y[:, keep], s[:, keep]; w = []
    while len(w) < n:
        draw = np.bincount(rng.integers(0, len(y), len(y)), minlength=len(y))
        if (draw @ y).min() > 0: w.append(draw)
    w = np.stack([np.ones(len(y), int), *w]); auc = np.mean([ranking(y[:, c], s[:, c], w)[0] for c in range(len(keep))], 0)
    return dict(auc=round(float(auc[0]), 4), low=round(float(np.quantile(auc[1:], .05)), 4), high=round(float(np.quantile(auc[1:], .95)), 4), classes=len(keep), records=len(y))


def halves(y, z, groups, aim, n=20, risk=.1):
    "Means over n random halves of what the other half says of calibration, thresholds and the abstaining rule."
    names, rng, got = np.unique(groups), np.random.default_rng(0), []
    for _ in range(n):
        a = np.isin(groups, rng.permutation(names)[:len(names)//2]); b = ~a; c = Calibration().fit(z[a], y[a]); p, q = c(z[a]), c(z[b]); t = y[b] > .5
        before, after = calibration_errors(y[b], sigmoid(z[b])), calibration_errors(y[b], q); hit = q >= Thresholds(aim).fit(y[a], p).thresholds_; said = Conformal(risk).fit(y[a], p)(q)
        got.append(dict(ece_before=before["ece"], ece_after=after["ece"], brier_before=before["brier"], brier_after=after["brier"], micro_f1=2*(hit & t).sum()/(hit.sum() + t.sum()),
                        missed=(said == ABSENT)[t].mean(), false_alarms=(said == PRESENT)[~t].mean(), decided=(said != UNCERTAIN).mean()))
    return dict(n=n, risk=risk) | {k: round(float(np.mean([g[k] for g in got])), 4) for k in got[0]}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", required=True); a.add_argument("--model"); a.add_argument("--fold", type=int, default=9); a.add_argument("--n-boot", type=int, default=1000); a.add_argument("--json", type=Path)
    o = a.parse_args(); clf = Classifier.load(o.model) if o.model else load_shipped("ptbxl"); everything = scp_vocabulary("all")
    if clf.vocab.codes != everything.codes: raise SystemExit("this classifier does not have PTB-XL's 71 statements")
    corpus = open_corpus(o.data, None, "auto" if is_pack(o.data) else "scp"); entries = [e for e in corpus.entries if e.fold == o.fold and e.codes]; ds = corpus.dataset(entries, everything, clf.fs); begun = time.time()
    z = []
    for k in range(0, len(ds), 32):
        some = [ds[i] for i in range(k, min(k + 32, len(ds)))]; z.append(clf.run([s.signal for s in some])[0])
    z, seconds = np.concatenate(z), time.time() - begun; p = clf.probabilities(z); out = dict(fold=o.fold, records=len(ds), seconds=round(seconds, 1), model=clf.card.sha256[:12], tasks={})
    for task in SCP_TASKS:
        v = scp_vocabulary(task); y = np.stack([v.encode(e.codes) for e in entries]); there = y.any(1)
        out["tasks"][task] = interval(y[there], of_task(p, clf.vocab, v)[there], o.n_boot, np.random.default_rng(0))
        print(task, out["tasks"][task], flush=True)
    y = np.stack([everything.encode(e.codes) for e in entries])
    m = evaluate(y, p, clf.vocab, clf.thresholds, [e.group for e in entries], o.n_boot)["macro"]
    out["resampled_patients"] = {k: round(v, 4) for k, v in m.items()}
    out["halves"] = halves(y, z, np.array([e.group for e in entries]), clf.card.training.get("threshold_aim", "f1"))
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
