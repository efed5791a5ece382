"""Put the classifier of a finished run into the package: python tools/ship.py RUN ptbxl

The run is one of `arrhythmia train PTBXL --recipe ptbxl`; its classifier is copied as it is, with what its card can't know by itself, and its log goes to benchmarks/."""
import json, sys
from pathlib import Path

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.core import read_json
from arrhythmia_classifier.jobs import RECIPES

ROOT = Path(__file__).resolve().parent.parent
FACTS = dict(ptbxl=dict(source="ptbxl", available="folds 1 to 9 of 10: 19,601 records of 16,965 patients", command="arrhythmia train PTBXL --recipe ptbxl",
                        chosen_by="macro ROC-AUC on fold 9, see benchmarks/ablation.json; no record of fold 10 was at hand"))


def main(run, name):
    run, dest = Path(run), ROOT/"arrhythmia_classifier"/"data"/"models"/name; settings = read_json(run/"settings.json")
    differs = {k: (settings.get(k), v) for k, v in json.loads(json.dumps(RECIPES[name])).items() if settings.get(k) != v}
    if differs: sys.exit(f"{run.name} was not trained by the recipe {name}: {differs}")
    c = Classifier.load(run/"classifier"); c.card.name = name; c.card.training |= FACTS[name]; c.save(dest)
    lines = (run/"history.jsonl").read_text().splitlines(); settings.pop("data"), settings.pop("name")
    teachers = [dict(seed=settings["seed"] + k, **Classifier.load(run/f"teacher-{k}"/"classifier").card.metrics["valid"]) for k in range(settings.get("teachers", 0))]
    (ROOT/"benchmarks"/f"{name}-training.jsonl").write_text("\n".join([json.dumps(dict(command=FACTS[name]["command"], settings=settings, teachers=teachers)), *lines]) + "\n")
    size = sum(f.stat().st_size for f in dest.iterdir()); print(f"{dest.relative_to(ROOT)}: {size/1e6:.1f} MB, {c}")
    if size > 15e6: sys.exit("larger than 15 MB")


if __name__ == "__main__": main(*sys.argv[1:])
