#!/usr/bin/env python
"""The shipped classifier in other hospitals, and the same classes at home, so that the drop can be seen.

  python benchmarks/external.py --challenge FOLDER --data PTBXL --json benchmarks/external.json

FOLDER holds the Challenge's sources as folders; PTB-XL's own records among them were trained on and are left out. Statements are mapped to SNOMED-CT; classes that occur in
the Challenge records are scored (macro ROC-AUC, 90 % intervals by bootstrap over patients), each source over those that it can score. `same_classes`: fold 9 of
PTB-XL, mapped the same way, over the same classes.
The last line is one JSON object."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")
import argparse, json
from pathlib import Path

import numpy as np

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.evaluation import evaluate_job, mapped_vocabulary
from arrhythmia_classifier.labels import to_snomed
from arrhythmia_classifier.metrics import evaluate
from arrhythmia_classifier.pack import is_pack
from arrhythmia_classifier.shipped import load_shipped
from arrhythmia_classifier.sources import open_corpus


def short(row, *keys): return {k: round(row[k], 4) if isinstance(row[k], float) else row[k] for k in keys}


def at_home(clf, data, codes, n_boot):
    "Fold 9, over the classes of some codes."
    corpus = open_corpus(data, None, "auto" if is_pack(data) else "scp"); entries = [e for e in corpus.entries if e.fold == 9 and e.codes]; ds = corpus.dataset(entries, clf.vocab, clf.fs)
    z = np.concatenate([clf.run([ds[i].signal for i in range(k, min(k + 32, len(ds)))])[0] for k in range(0, len(ds), 32)])
    m = mapped_vocabulary(clf.vocab); m = m.only([m.vocab.codes.index(c) for c in codes]); y = np.stack([m.vocab.encode(to_snomed(e.codes)) for e in entries])
    r = evaluate(y, m(clf.probabilities(z)), m.vocab, .5, [e.group for e in entries], n_boot)
    return dict(classes=len(codes) - len(r["skipped"])) | short(r["macro"], "auc", "auc_low", "auc_high")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--challenge", type=Path, required=True); a.add_argument("--data", required=True); a.add_argument("--model"); a.add_argument("--n-boot", type=int, default=1000); a.add_argument("--json", type=Path)
    o = a.parse_args(); clf = Classifier.load(o.model) if o.model else load_shipped("ptbxl")
    m = evaluate_job(clf, sorted(f for f in o.challenge.iterdir() if f.is_dir() and f.name != "ptb-xl"), o.n_boot)
    scored = [c["code"] for c in m["classes"] if c["code"] not in m["skipped"]]
    out = dict(model=clf.card.sha256[:12], n_records=m["n_records"], classes=len(scored), **short(m["macro"], "auc", "auc_low", "auc_high"),
               sources=[dict(source=s["source"], n_records=s["n_records"], classes=s["n_classes"], **short(s, "auc", "auc_low", "auc_high")) for s in m["sources"]["sources"]],
               challenge=short(m["challenge"], "score", "score_low", "score_high"), unlike=m["unlike"], same_classes=at_home(clf, o.data, scored, o.n_boot),
               by_class=[dict(code=c["code"], name=c["name"], **short(c, "n_positive", "auc", "auc_low", "auc_high")) for c in m["classes"] if c["code"] in scored])
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
