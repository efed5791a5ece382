#!/usr/bin/env python
"""Why the recipe is what it is: one choice at a time, each trained with several seeds, scored on fold 9 of PTB-XL (all 71 statements, macro ROC-AUC).

  python benchmarks/ablate.py --data PTBXL                      all rows; PTB-XL as a pack or a folder
  python benchmarks/ablate.py --data PTBXL --rows base,focal --seeds 0,1
  python benchmarks/ablate.py --data PTBXL --rows ours,xresnet1d101,bilstm      other networks by the same recipe, see peers.py
  python benchmarks/ablate.py --data PTBXL --device cuda --workers 14 --json benchmarks/ablation_gpu.json      so many trainings share a GPU

Rows are trained with half the width and few passes (`SHORT`), because fifty trainings of the full recipe are days on two cores: they say which way a choice
points there, not what it is worth after the full recipe. `ours` and the peers have their full size. `no_shortcut`, `no_pooled`, `no_norm` and `no_zero` take one thing
away that the network has beside the reference architecture, `reference` all four. `student` is taught by one network that is trained before it; no other row has a teacher. What the JSON file holds is not trained again,
so a run can be stopped and gone on with, and rows can be added; one that was interrupted goes on from its last checkpoint, at most five minutes old (`ablation-runs`
beside the file). Validation is in float32 on whole records (`auc`) and on
windows as long as the crops, every half of them, logits averaged (`windows`). The score is the last epoch's: nothing is chosen by it.
`ensemble`: the same for the logits of a row's seeds together; they lie beside the JSON file meanwhile.
The last line is one JSON object."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")   # before numpy and torch are there
import argparse, json, multiprocessing, platform, shutil, sys, time, traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.collate import to_millivolt
from arrhythmia_classifier.core import read_json, seed_everything, write_json
from arrhythmia_classifier.fit import PartLoader, as_steps, prevalence, start_at_prior, taught_by
from arrhythmia_classifier.jobs import settings_of, train_datasets
from arrhythmia_classifier.layers import Pool, VectorNorm
from arrhythmia_classifier.loss import loss_of
from arrhythmia_classifier.metrics import epoch_scores
from arrhythmia_classifier.model import WFDBResNetLSTM
from arrhythmia_classifier.train import Trainer
from peers import PEERS, parameters

PARTS = ("shortcut", "pooled", "norm", "zero")
HALF = dict(stem_channels=16, channels=(32, 64, 128))
SHORT = dict(epochs=1, passes=4, model=HALF)                       # on top of the recipe
FULL = dict(epochs=1, passes=8)                                     # for networks against each other
ROWS = dict(
    base={}, student=dict(teachers=1), focal=dict(loss="focal"), asymmetric=dict(loss="asymmetric"),
    no_prior=dict(prior=False),                                     # the head begins at one half for every class
    no_average=dict(average=0.), no_mixup=dict(mixup=0.), mixup_more=dict(mixup=.8),
    no_augmentation=dict(augment=False), no_lead_loss=dict(augment=dict(gain=.2, lead_drop=0.)), no_gain=dict(augment=True),
    crop_5=dict(crop=5., batch_size=32, passes=2), whole=dict(crop=None, batch_size=16, passes=1),   # as many seconds of signal, as many steps
    cosine=dict(schedule="cosine"), batch_128=dict(batch_size=128), lr_1=dict(lr=1e-3), lr_4=dict(lr=4e-3),
    stem_2=dict(stem_stride=2),                                     # half the steps everywhere
    quarter=dict(model=dict(stem_channels=8, channels=(16, 32, 64))), width_1=dict(model={}),
    dropout_2=dict(model=HALF | dict(dropout=.2)), kernel_5=dict(model=HALF | dict(kernel=5)), no_lstm_2=dict(model=HALF | dict(lstm_layers=1)))
ROWS |= {f"no_{p}": dict(without=[p]) for p in PARTS} | dict(reference=dict(without=list(PARTS)))
NETWORKS = dict(ours={}, xresnet1d101=dict(net="xresnet1d101"), bilstm=dict(net="bilstm"))


class Strided(WFDBResNetLSTM):
    "Ours with another stride of the stem than its rate asks for."
    def __init__(self, config, stride):
        super().__init__(config); self.stem.stride = stride; self.stem.conv.stride = (stride,)


class Without(WFDBResNetLSTM):
    "Ours without the shortcut past the LSTM, mean and maximum beside attention, the norm before the head, or residual blocks that begin at zero."
    def __init__(self, config, parts):
        super().__init__(config); self.parts, c = parts, config
        F = 2*c.hidden + ("shortcut" not in parts)*c.channels[-1]; K = F if "pooled" in parts else 3*F
        self.pool, self.norm, self.head = Pool(F), nn.Identity() if "norm" in parts else VectorNorm(K), nn.Linear(K, c.n_classes)
        if "zero" in parts: [nn.init.ones_(b.bn2.weight) for b in self.stages]

    def forward(self, x, lengths=None):
        x, n, m = self.stem(x, lengths)
        for block in self.stages: x, n, m = block(x, n, m)
        x = x.transpose(1, 2); h = self.lstm(x, n)
        v = self.pool(h if "shortcut" in self.parts else torch.cat([h, x], 2), n)[0]
        return self.head(self.dropout(self.norm(v[:, :self.head.in_features])))


def network(s, train, net, stem_stride, prior, without):
    C = len(train.vocab)
    if net is None:
        out = Strided(s.network(C), stem_stride) if stem_stride else Without(s.network(C), without) if without else WFDBResNetLSTM(s.network(C))
        return start_at_prior(out, train) if prior else out
    out, p = PEERS[net](C), prevalence(train)
    with torch.no_grad(): out.head[-1].bias.copy_(torch.from_numpy(np.log(p/(1 - p))))
    return out


@torch.no_grad()
def windows(model, loader, n, device):
    "Logits of windows of n samples, every n/2, averaged."
    z = []
    for b in loader.batches():
        x = to_millivolt(b).signal.to(device); starts = range(0, max(x.shape[2] - n, 0) + 1, max(n//2, 1))
        z.append(torch.stack([model(x[:, :, k:k + n], None) for k in starts]).mean(0).cpu())
    return torch.cat(z).numpy()


def run(data, given, seed, device="cpu", folder=None):
    given = dict(given); net, stride, prior = given.pop("net", None), given.pop("stem_stride", None), given.pop("prior", True); without = given.pop("without", ())
    s = settings_of("ptbxl", data=str(Path(data).resolve()), seed=seed, **(dict(teachers=0) | given)); begun = time.time()
    train, valid = train_datasets(s, None, lambda *_: None)
    loaders = PartLoader(as_steps(train), s.batch_size, True, seed, passes=s.passes), PartLoader(as_steps(valid), 64)
    places = []
    def trained(seed):
        seed_everything(seed); place = folder and folder/str(seed)
        if place: place.mkdir(parents=True, exist_ok=True); places.append(place)
        t = Trainer(network(s, train, net, stride, prior, without), loss_of(s.loss, s.gamma), *loaders, epoch_scores, replace(s.config, seed=seed), device=device, prepare=to_millivolt, folder=place)
        return t.fit(resume=bool(place) and (place/"checkpoint.safetensors").is_file(), stopped=lambda: False)
    def on(c): c.network.to(device); c.device = torch.device(device); return c
    if s.teachers: loaders[0].taught = taught_by([on(Classifier.from_model(trained(seed + 100*(k + 1)).model, train.vocab)) for k in range(s.teachers)], train, s.share)
    t = trained(seed); y, z, _ = t.predict(loaders[1]); row = dict(auc=epoch_scores(y, z)["auc"], seconds=round(max(time.time() - begun, t.seconds)), parameters=parameters(t.model))
    if s.crop: row["windows"] = epoch_scores(y, windows(t.model, loaders[1], round(s.crop*s.fs), t.device))["auc"]
    for p in places: shutil.rmtree(p)
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}, y, z


def table(rows):
    out = {}
    for name, r in rows.items():
        a = [v["auc"] for v in r["seeds"].values()]; w = [v["windows"] for v in r["seeds"].values() if "windows" in v]
        out[name] = dict(auc=round(float(np.mean(a)), 4), spread=round(max(a) - min(a), 4), windows=round(float(np.mean(w)), 4) if w else None, ensemble=r.get("ensemble"), n=len(a))
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", required=True); a.add_argument("--rows", default=",".join(ROWS)); a.add_argument("--seeds", default="0,1")
    a.add_argument("--device", default="cpu"); a.add_argument("--workers", type=int, default=1, help="processes, each with a training of its own")
    a.add_argument("--minutes", type=float, default=1e9, help="what is not finished by then is left")
    a.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json").with_name("ablation.json")); a.add_argument("--quick", action="store_true", help="one pass, nothing is kept")
    o = a.parse_args(); torch.set_num_threads(1); end = time.time() + 60*o.minutes
    where = f"{platform.machine()}, 1 thread" if o.device == "cpu" else torch.cuda.get_device_name()
    kept = dict(protocol=dict(SHORT, model=as_json(HALF)), machine=f"{where}, torch {torch.__version__}", rows={})
    if o.json.is_file() and not o.quick:
        old = read_json(o.json)
        if old["machine"] != kept["machine"]: sys.exit(f"{o.json.name} is of another machine, {old['machine']}: the figures of one table come from one; give another --json")
        kept = old
    todo = [(name, (SHORT | ROWS[name]) if name in ROWS else (FULL | NETWORKS[name]), seed) for seed in map(int, o.seeds.split(",")) for name in o.rows.split(",")
            if str(seed) not in kept["rows"].get(name, {}).get("seeds", {})]
    failed = []; runs = o.json.parent/"ablation-runs"; jobs = [(o.data, name, given | (dict(passes=1) if o.quick else {}), seed, o.device, None if o.quick else runs/name) for name, given, seed in todo]
    with multiprocessing.get_context("spawn").Pool(o.workers) if o.workers > 1 else nullcontext() as pool:
        done = pool.imap_unordered(job, jobs) if pool else map(job, jobs)
        while True:
            try: name, seed, row, y, z = done.next(max(end - time.time(), .1)) if pool else next(done)
            except (StopIteration, multiprocessing.TimeoutError): break
            print(name, seed, json.dumps(row), flush=True)
            if "error" in row: failed.append(name)
            else: keep(kept, None if o.quick else o.json, name, seed, row, y, z)
            if time.time() > end: break
    print(json.dumps(table(kept["rows"])))
    if failed: sys.exit(f"failed: {', '.join(failed)}")


def job(args):
    torch.set_num_threads(1); data, name, given, seed, device, folder = args
    try: return name, seed, *run(data, given, seed, device, folder)
    except Exception as e: traceback.print_exc(); return name, seed, dict(error=f"{type(e).__name__}: {e}"), None, None


def keep(kept, file, name, seed, row, y, z):
    given = (SHORT | ROWS[name]) if name in ROWS else (FULL | NETWORKS[name])
    r = kept["rows"].setdefault(name, dict(settings=as_json(given), seeds={})); r["seeds"][str(seed)] = row
    if file is None: return
    logits = file.parent/"ablation-logits"; logits.mkdir(exist_ok=True); np.save(logits/f"{name}-{seed}.npy", z)
    z = [np.load(f) for k in r["seeds"] if (f := logits/f"{name}-{k}.npy").is_file()]
    if len(z) > 1: r["ensemble"] = round(epoch_scores(y, sum(z)/len(z))["auc"], 5)
    write_json(file, kept)


def as_json(d): return json.loads(json.dumps(d))


if __name__ == "__main__": main()
