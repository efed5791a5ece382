#!/usr/bin/env python
"""Training and inference on a GPU, our loop against the plain one; writes benchmarks/gpu.json with the card's name.

  python benchmarks/gpu.py                     everything, in about 8 minutes; without a CUDA card it says so and ends well
  python benchmarks/gpu.py --cpu               the same code on tiny sizes and the CPU: that it runs, no figure of it means anything

Data are generated: 12 leads, 10 s at 500 Hz, 16-bit. Both sides of a ratio take turns in one run.
plain: the network without masks, float32 as torch does it by itself (convolutions in TF32), batches of 32 float32 records that lie in memory already,
padded to the longest, no workers, a look at the loss at every step; plain_512: that with batches of 512; plain_wfdb: that with each record read by wfdb.
ours: `Trainer` with bf16, compiled convolutions and batches of 512; gpu: 16-bit records that lie in the card's memory; pack: from a pack on disk by a
thread that reads ahead; augmented: with noise, wander and lost leads, made by worker processes; mixed: records of 6 to 60 s in few lengths.
FLOP are counted by hand, LSTM included: two for each multiply-add, three times the forward pass for a training step.

Needs this repository, torch, numpy, scipy, pyarrow, fastcore, tqdm (wfdb for plain_wfdb, the core dependencies for pt2). The last line is one JSON object."""
import argparse, importlib.util, json, os, platform, statistics, sys, tempfile, time, traceback
from pathlib import Path

os.environ.setdefault("ARRHYTHMIA_QUIET", "1")
HERE = Path(__file__).resolve().parent; sys.path.insert(0, str(HERE.parent))
if missing := [m for m in ("numpy", "torch", "scipy", "pyarrow", "fastcore", "tqdm") if importlib.util.find_spec(m) is None]:
    sys.exit(f"missing: {', '.join(missing)}; install them, or: pip install -e .")

import numpy as np
import torch
import torch._dynamo
from torch.utils.data import DataLoader

from arrhythmia_classifier.collate import Batch, Loader, to_millivolt
from arrhythmia_classifier.dataset import Augment, RecordDataset
from arrhythmia_classifier.labels import Label, Vocabulary
from arrhythmia_classifier.layers import ceil_div
from arrhythmia_classifier.loss import FocalLoss
from arrhythmia_classifier.model import ModelConfig, WFDBResNetLSTM
from arrhythmia_classifier.pack import Pack, pack
from arrhythmia_classifier.packed import PackedDataset, PackEntries
from arrhythmia_classifier.records import Record
from arrhythmia_classifier.synth import synth_records
from arrhythmia_classifier.train import TrainConfig, Trainer, float32_as
from timing import network_code

GOALS = dict(ours_vs_plain=5, ours_gpu_records_per_s=10_000)
# dense TFLOP/s in bf16 (fp16 before Ampere), TF32, float32, and TB/s of memory, from the makers' data sheets; the first name that is part of the card's
PEAKS = {"B200": (2250, 1125, 75, 8.), "H200": (989, 494, 67, 4.8), "GH200": (989, 494, 67, 4.), "H100 PCIe": (756, 378, 51, 2.), "H100": (989, 494, 67, 3.35),
         "A100": (312, 156, 19.5, 2.), "L40S": (362, 183, 91.6, .864), "L4": (121, 60, 30.3, .3), "A10": (125, 62, 31.2, .6), "RTX 4090": (165, 83, 82.6, 1.01),
         "RTX 3090": (71, 36, 35.6, .94), "V100": (125, None, 15.7, .9), "T4": (65, None, 8.1, .32)}
EDGES = (10, 20, 60)   # seconds that records of mixed lengths are padded up to


def macs(c:ModelConfig, T:int)->dict:
    "Multiply-adds of the forward pass for one record, part by part."
    up = lambda n, s: -(-n//s)
    L = up(T, c.stem_stride); out = dict(stem=12*c.stem_channels*c.stem_kernel*L, stages=0); L, w = up(L, 2), c.stem_channels
    for ch, s in zip(c.channels, c.strides):
        for i in range(c.blocks):
            a, s_ = (w, s) if i == 0 else (ch, 1); L = up(L, s_)
            out["stages"] += L*ch*c.kernel*(a + ch) + (L*a*ch if (a, s_) != (ch, 1) else 0) + 2*ch*max(ch//c.reduction, 1)
        w = ch
    out["lstm"] = sum(L*2*4*c.hidden*((w if k == 0 else 2*c.hidden) + c.hidden) for k in range(c.lstm_layers))
    out["head"] = 2*L*2*c.hidden + 2*c.hidden*c.n_classes
    return out


def signals(n, fs, lengths, seed=0): # -> list of int16 (12, T), 1 µV a step
    "Records like the generated ones of `03_synth`, shifted and repeated."
    some = [np.round(r.signal*1000).astype(np.int16) for r in synth_records(16, fs=fs, seconds=10, seed=seed)]
    rng = np.random.default_rng(seed); at = rng.integers(0, 10*fs, n)
    return [np.take(some[k % len(some)], np.arange(a, a + int(T)), axis=1, mode="wrap") for k, (a, T) in enumerate(zip(at, lengths))]


class OnDevice:
    "Records of one length that lie in the device's memory; batches are gathered there."
    def __init__(self, steps, target, batch, dev, rounds=1): self.x, self.y, self.batch, self.rounds = steps.to(dev), target.to(dev), batch, rounds
    def __len__(self): return len(self.x)*self.rounds//self.batch
    def batches(self, epoch=0, start=0):
        g = torch.Generator().manual_seed(epoch); order = torch.cat([torch.randperm(len(self.x), generator=g) for _ in range(self.rounds)])
        lengths = torch.full((self.batch,), self.x.shape[2]); gain = torch.full((self.batch, 12), 1000., device=self.x.device)
        for k in range(start, len(self)):
            rows = order[k*self.batch:(k + 1)*self.batch].to(self.x.device, non_blocking=True)
            yield Batch(self.x[rows], lengths, self.y[rows], [""]*self.batch, [], gain)


class First:
    "The first batch of a loader: a validation that costs nothing."
    def __init__(self, loader): self.loader = loader
    def __len__(self): return 1
    def batches(self, *_):
        for b in self.loader.batches(): yield b; return


class Bench:
    def __init__(self, o):
        self.o, self.dev, self.begun, self.out = o, torch.device("cpu" if o.cpu else "cuda"), time.time(), {}
        self.fs, self.T = (100, 300) if o.cpu else (500, 5000); self.B, self.n = (8, 32) if o.cpu else (512, 16_384); self.C = 5 if o.cpu else 55
        self.config = ModelConfig.small(self.C, 100) if o.cpu else ModelConfig(self.C, 500.)
        self.vocab = Vocabulary([Label(str(10**7 + k), f"C{k}", f"class {k}") for k in range(self.C)])
        self.fast = dict(precision="bf16", compile="aot_eager" if o.cpu else "inductor"); self.flop = 6*sum(macs(self.config, self.T).values())

    def left(self): return self.o.minutes*60 - (time.time() - self.begun)

    def section(self, f, least=30): # seconds that it needs, or it is left out
        name = f.__name__
        if self.left() < least: print(f"{name}: left out, no time", flush=True); self.out.setdefault("left_out", []).append(name); return
        t = time.time(); torch._dynamo.reset()                                                               # what others have compiled is not searched
        try: self.out |= f() or {}
        except Exception as e: traceback.print_exc(); self.out.setdefault("failed", {})[name] = f"{type(e).__name__}: {str(e)[:300]}"
        self.out.setdefault("section_s", {})[name] = round(time.time() - t, 1); print(f"{name}: {time.time() - t:.0f} s", flush=True)
        if self.o.json: self.o.json.write_text(json.dumps(self.out, indent=1) + "\n", encoding="utf-8")      # what is known outlives a kill

    def sync(self):
        if self.dev.type == "cuda": torch.cuda.synchronize()

    def ms(self, f, n=10): # of one call, the median of n after three
        for _ in range(1 if self.o.cpu else 3): f()
        took = []
        for _ in range(2 if self.o.cpu else n):
            self.sync(); t = time.perf_counter(); f(); self.sync(); took.append(1e3*(time.perf_counter() - t))
        return statistics.median(took)

    def model(self): torch.manual_seed(0); return WFDBResNetLSTM(self.config).to(self.dev)

    def plain(self, items, batch, seconds, then=lambda x: x): # a function that trains for about so many seconds and returns records/s
        model, loss_of = self.model().train(), FocalLoss(); opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
        def collate(some):
            x = torch.zeros(len(some), 12, max(s.shape[1] for s, _ in some))
            for row, (s, _) in zip(x, some): row[:, :s.shape[1]] = torch.from_numpy(s)
            return x, torch.stack([y for _, y in some])
        class Items(torch.utils.data.Dataset):
            def __len__(self): return len(items)
            def __getitem__(self, i): return then(items[i][0]), items[i][1]
        def run():
            model.train(); n, sums = 0, 0.; self.sync(); t = time.perf_counter()
            while time.perf_counter() - t < seconds:
                for x, y in DataLoader(Items(), batch, shuffle=True, num_workers=0, collate_fn=collate):
                    x, y = x.to(self.dev), y.to(self.dev)
                    loss = loss_of(model(x), y); opt.zero_grad(); loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.); opt.step(); sums += loss.item(); n += len(x)
                    if time.perf_counter() - t >= seconds: break
            self.sync()
            return n/(time.perf_counter() - t)
        run(); return run

    def ours(self, loader, epochs=4, between=lambda: None, **kw): # -> records/s, share of the time waited for data, seconds of the first epoch
        model = self.model()
        t = Trainer(model, FocalLoss(), loader, First(loader), lambda y, z: dict(auc=0.), TrainConfig(epochs=epochs, lr=1e-4, patience=epochs, **self.fast | kw), device=self.dev,
                    on_epoch=lambda row: between(), parts=[model.stem, *model.stages], prepare=to_millivolt).fit(stopped=lambda: False)
        after = t.timing[1:]
        return statistics.median(r["records"]/r["seconds"] for r in after), sum(r["waited"] for r in after)/sum(r["seconds"] for r in after), t.timing[0]["seconds"]

    # ---- sections
    def data(self):
        self.x = torch.from_numpy(np.stack(signals(self.n, self.fs, [self.T]*self.n)))
        self.y = (torch.rand(self.n, self.C, generator=torch.Generator().manual_seed(0)) < .1).float()
        for m, want in (macs(ModelConfig(55, 500.), 5000), 772.6),: assert abs(sum(m.values())/1e6 - want) < 5, m
        return dict(records=self.n, samples=self.T, classes=self.C, weights=sum(p.numel() for p in self.model().parameters()),
                    forward_mmac={k: round(v/1e6, 1) for k, v in macs(self.config, self.T).items()}, train_gflop_per_record=round(self.flop/1e9, 2))

    def card(self):
        if self.o.cpu: return dict(card="none: a self-test on the CPU")
        name = torch.cuda.get_device_name(); peak = next((v for k, v in PEAKS.items() if k in name), None); n = 8192
        a, b = (torch.randn(n, n, device=self.dev, dtype=torch.bfloat16) for _ in range(2)); big = torch.empty(2**31, dtype=torch.uint8, device=self.dev)
        mm, cp = self.ms(lambda: a @ b), self.ms(lambda: big.clone())
        return dict(card=name, memory_gb=round(torch.cuda.get_device_properties(0).total_memory/1e9), cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
                    peak_bf16_tflops=peak and peak[0], peak_tf32_tflops=peak and peak[1], peak_memory_tb_s=peak and peak[3],
                    matmul_bf16_tflops=round(2*n**3/mm/1e9), copy_tb_s=round(2*2**31/cp/1e9, 2))

    def parity(self): # before anything is fast, it is right
        torch.manual_seed(0); model = WFDBResNetLSTM(self.config).eval(); n = torch.tensor([self.T, self.T//2 + 1, self.T//3, self.T])
        x = torch.from_numpy(np.stack(signals(4, self.fs, [self.T]*4))).float()/1000
        with torch.inference_mode(), float32_as("ieee"):
            a = [model(x), model(x, n)]; model.to(self.dev); b = [model(x.to(self.dev)).cpu(), model(x.to(self.dev), n.to(self.dev)).cpu()]
            alone = torch.cat([model(x[i:i + 1, :, :k].to(self.dev)).cpu() for i, k in enumerate(n.tolist())])
        gap = max((p - q).abs().max().item() for p, q in zip(a, b)); assert gap < 1e-4, gap
        return dict(cpu_gpu_max_logit_difference=gap, alone_batched_max_logit_difference=(alone - b[1]).abs().max().item())

    def training(self): # the figure, the two sides taking turns
        float_items = [(s.numpy().astype(np.float32)/1000, y) for s, y in zip(self.x[:4096], self.y)]; s = .5 if self.o.cpu else 4
        refs = dict(plain=self.plain(float_items, 4 if self.o.cpu else 32, s), plain_512=self.plain(float_items, self.B, s)); rates = {k: [] for k in refs}
        def between():
            for k, run in refs.items(): rates[k].append(run())
        rate, waited, first = self.ours(OnDevice(self.x, self.y, self.B, self.dev, 1 if self.o.cpu else 3), 3 if self.o.cpu else 4, between)
        self.rate, flops = rate, rate*self.flop; peak = self.out.get("peak_bf16_tflops"); base = {k: statistics.median(v) for k, v in rates.items()}
        return {f"{k}_records_per_s": round(v, 1) for k, v in base.items()} | dict(ours_gpu_records_per_s=round(rate, 1), ours_gpu_loader_share=round(waited, 4),
            ours_vs_plain=round(rate/base["plain"], 2), ours_vs_plain_512=round(rate/base["plain_512"], 2), compile_s=round(first, 1), batch=self.B,
            achieved_tflops=round(flops/1e12, 3), share_of_peak=peak and round(flops/1e12/peak, 4), precision="bf16")

    def parts(self): # where a step goes: each part alone, forward and backward, in the shapes of a step
        model, c, out = self.model().train(), self.config, {}; x = self.x[:self.B].to(self.dev).float()/1000; y = self.y[:self.B].to(self.dev); loss = FocalLoss()
        half = torch.float32 if self.o.cpu else torch.bfloat16
        trunk = torch.nn.ModuleList([model.stem, *model.stages])
        for p in trunk: p.compile(backend=self.fast["compile"], dynamic=False)
        def stages(h):
            for b in model.stages: h = b(h)[0]
            return h
        with torch.no_grad(), torch.autocast(self.dev.type, torch.bfloat16): h = model.stem(x)[0]; u = stages(h).transpose(1, 2).contiguous(); v = torch.cat([model.lstm(u), u], 2)
        def both(f, given): # a part's forward and backward
            given = given.detach().to(half if given is not x else x.dtype).requires_grad_(given is not x)
            def go():
                with torch.autocast(self.dev.type, torch.bfloat16): z = f(given)
                z.backward(torch.ones_like(z))
            return go
        head = lambda v: loss(model.head(model.dropout(model.norm(model.pool(v)[0]))).float(), y)
        for name, f, given in (("stem", lambda a: model.stem(a)[0], x), ("stages", stages, h), ("lstm", model.lstm, u), ("head", head, v)): out[name] = self.ms(both(f, given))
        opt = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if self.dev.type == "cuda" else None)
        out["optimiser"] = self.ms(lambda: (torch.nn.utils.clip_grad_norm_(model.parameters(), 1.), opt.step()))
        steps = self.x[:self.B].to(self.dev); out["to_millivolt"] = self.ms(lambda: steps.to(torch.float32).div_(1000.))
        total = sum(out.values()); m = macs(c, self.T); step = 1e3*self.B/self.rate if hasattr(self, "rate") else None
        self.lstm_ms = out["lstm"]
        return dict(part_ms={k: round(v, 3) for k, v in out.items()}, parts_sum_ms=round(total, 2), step_ms=step and round(step, 2), lstm_share=round(out["lstm"]/total, 4),
                    lstm_us_per_time_step=round(1e3*out["lstm"]/u.shape[1], 2), part_tflops={k: round(6*m[k]*self.B/out[k]/1e9, 2) for k in ("stem", "stages", "lstm")})

    def steps_up(self): # what each measure brings, at the same batch
        src = OnDevice(self.x, self.y, self.B, self.dev, 1)
        forms = dict(float32=dict(precision="float32", compile=""), tf32=dict(precision="tf32", compile=""), bf16=dict(precision="bf16", compile=""))
        return dict(forms_records_per_s={k: round(self.ours(src, 2, **f)[0], 1) for k, f in forms.items()})

    def batches(self): # the LSTM's time steps are a floor under every optimiser step, whatever the batch
        sizes = (4, 8) if self.o.cpu else (64, 128, 256, 1024)
        return dict(batch_records_per_s={b: round(self.ours(OnDevice(self.x, self.y, b, self.dev), 2, compile="")[0], 1) for b in sizes})

    def records(self, steps):
        one = lambda k, s: Record(f"r{k}", s.astype(np.float32)/1000, float(self.fs), codes=(self.vocab.codes[k % self.C],))
        return RecordDataset([one(k, s) for k, s in enumerate(steps)], self.vocab, self.fs)

    def from_pack(self):
        few = self.x[:self.n if self.o.cpu else 4096].numpy(); p = pack(self.records(few), self.tmp/"pack", workers=1); times = 2 if self.o.cpu else 8
        assert not p.kind.any(), "not all as int16"
        ds = lambda **kw: PackedDataset(PackEntries(p, np.tile(np.arange(len(p)), times)), self.vocab, self.fs, **kw)
        rate, waited, _ = self.ours(Loader(ds(raw=True), self.B, True), 3, prefetch=2 if self.o.cpu else 4)
        out = dict(ours_pack_records_per_s=round(rate, 1), ours_pack_loader_share=round(waited, 4)); k = 1 if self.o.cpu else max((os.cpu_count() or 2) - 3, 1)
        rate, waited, _ = self.ours(Loader(ds(augment=Augment()), self.B, True, workers=k), 3, prefetch=2)
        return out | dict(ours_augmented_records_per_s=round(rate, 1), ours_augmented_loader_share=round(waited, 4), augmented_workers=k)

    def mixed(self): # as in the Challenge 2021: 10 s in most, one in eight of 6 to 60 s
        n = 24 if self.o.cpu else 4096; rng = np.random.default_rng(0); scale = .3 if self.o.cpu else 1
        seconds = np.where(rng.random(n) < .874, 10, rng.uniform(6, 60, n))*scale; steps = signals(n, self.fs, np.maximum(seconds*self.fs, 120).astype(int), 1)
        p = pack(self.records(steps), self.tmp/"mixed", workers=1); times = 1 if self.o.cpu else 4
        ds = PackedDataset(PackEntries(p, np.tile(np.arange(n), times)), self.vocab, self.fs, raw=True); B = 4 if self.o.cpu else 128
        plain = self.plain([(s.astype(np.float32)/1000, y) for s, y in zip(steps, self.y[:n])], 4 if self.o.cpu else 32, .5 if self.o.cpu else 4); rates = []
        rate, waited, first = self.ours(Loader(ds, B, True), 3, lambda: rates.append(plain()), prefetch=4, pad_to=tuple(int(e*scale*self.fs) for e in EDGES))
        return dict(mixed_records_per_s=round(rate, 1), mixed_plain_records_per_s=round(statistics.median(rates), 1), mixed_vs_plain=round(rate/statistics.median(rates), 2),
                    mixed_loader_share=round(waited, 4), mixed_compile_s=round(first, 1), mixed_batch=B)

    def with_wfdb(self):
        if importlib.util.find_spec("wfdb") is None: return dict(plain_wfdb_records_per_s=None)
        import wfdb
        k = 8 if self.o.cpu else 512; names = [f"r{i}" for i in range(k)]; leads = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split()
        for name, s in zip(names, self.x.numpy()):
            wfdb.wrsamp(name, fs=self.fs, units=["mV"]*12, sig_name=leads, d_signal=s.T.astype(np.int64), fmt=["16"]*12, adc_gain=[1000.]*12, baseline=[0]*12, write_dir=str(self.tmp))
        run = self.plain(list(zip([str(self.tmp/n) for n in names], self.y)), 4 if self.o.cpu else 32, .5 if self.o.cpu else 4, lambda path: wfdb.rdrecord(path).p_signal.T.astype(np.float32))
        return dict(plain_wfdb_records_per_s=round(rate := run(), 1)) | (dict(ours_vs_plain_wfdb=round(self.rate/rate, 1)) if hasattr(self, "rate") else {})

    @torch.inference_mode()
    def inference(self):
        model = self.model().eval(); x = self.x[:self.B].to(self.dev).float()/1000; out = {}
        def rate(f, kind="ieee", half=False):
            with float32_as(kind), torch.autocast(self.dev.type, torch.bfloat16, enabled=half): return round(1e3*self.B/self.ms(f), 1)
        out |= dict(float32=rate(lambda: model(x)), tf32=rate(lambda: model(x), "tf32"), bf16=rate(lambda: model(x), half=True))
        for p in (model.stem, *model.stages): p.compile(backend=self.fast["compile"], dynamic=False)
        out["bf16_compiled"] = rate(lambda: model(x), half=True)
        return dict(inference_records_per_s=out, inference_batch=self.B)

    def pt2(self): # the classifier that ships, as it was exported on a CPU: on the card as there, on the shapes that every export is checked on, and a record alone as in its batch
        from arrhythmia_classifier.pt2 import SHAPES, load_pt2
        file = HERE.parent/"arrhythmia_classifier"/"data"/"models"/"ptbxl"/"model.pt2"; cpu, net = load_pt2(file), load_pt2(file, self.dev); gaps, alone, g = {}, 0., torch.Generator().manual_seed(1)
        with torch.inference_mode(), float32_as("ieee"):
            for B, seconds in SHAPES:
                T = int(seconds*100); n = torch.randint(100, T + 1, (B,), generator=g); n[B//2] = T
                x = torch.from_numpy(np.stack(signals(B, 100, [T]*B))).float()/1000; z = net(x.to(self.dev), n.to(self.dev))[0].cpu()
                gaps[f"{B} x {seconds} s"] = (cpu(x, n)[0] - z).abs().max().item()
                alone = max([alone] + [(net(x[k:k + 1, :, :m].to(self.dev), torch.tensor([m], device=self.dev))[0].cpu() - z[k]).abs().max().item() for k, m in list(enumerate(n.tolist()))[:8]])
        assert max(gaps.values()) < 1e-4 and alone < 1e-4, (gaps, alone)
        return dict(pt2_cpu_gpu_max_logit_difference=gaps, pt2_alone_batched_max_logit_difference=alone)

    def mask(self): # what exactness costs: the same batch with lengths, of which a quarter are shorter, and without, taking turns
        model, loss = self.model(), FocalLoss(); x = self.x[:self.B].to(self.dev).float()/1000; y = self.y[:self.B].to(self.dev)
        n = torch.full((self.B,), self.T, device=self.dev); n[::4] = self.T*2//3; times = {k: [] for k in ("forward", "forward_masked", "step", "step_masked")}
        def step(n):
            with torch.autocast(self.dev.type, torch.bfloat16): z = model(x, n)
            loss(z.float(), y).backward()
        @torch.inference_mode()
        def forward(n):
            with torch.autocast(self.dev.type, torch.bfloat16): model(x, n)
        for p in (model.stem, *model.stages): p.compile(backend=self.fast["compile"], dynamic=False)
        for _ in range(3):
            model.train(); times["step"].append(self.ms(lambda: step(None), 5)); times["step_masked"].append(self.ms(lambda: step(n), 5))
            model.eval(); times["forward"].append(self.ms(lambda: forward(None), 5)); times["forward_masked"].append(self.ms(lambda: forward(n), 5))
        steps = ceil_div(n, self.config.downsampling); u = torch.randn(self.B, int(steps.max()), self.config.channels[-1], device=self.dev, requires_grad=True)
        u.data *= (torch.arange(u.shape[1], device=self.dev) < steps[:, None])[:, :, None]; lstm, layers = model.lstm.train(), list(zip(model.lstm.all_weights[::2], model.lstm.all_weights[1::2]))
        def lstm_step(f):
            with torch.autocast(self.dev.type, torch.bfloat16): y = f(u)
            y.float().square().mean().backward()
        ways = dict(lstm=lstm, lstm_held=lambda u: lstm._held(u.transpose(0, 1), steps, layers), lstm_turned=lambda u: lstm._turned(u.transpose(0, 1), steps, layers))
        for _ in range(3):                                             # the LSTM alone, and both ways in which it knows lengths
            for k, f in ways.items(): times.setdefault(k, []).append(self.ms(lambda: lstm_step(f), 5))
        t = {k: statistics.median(v) for k, v in times.items()}
        return dict(mask_ms={k: round(v, 2) for k, v in t.items()}, mask_cost_forward=round(t["forward_masked"]/t["forward"], 3), mask_cost_step=round(t["step_masked"]/t["step"], 3))

    def lift(self): # by arithmetic from what was measured
        o = self.out; step = 1e3*self.B/self.rate; best = o.get("peak_bf16_tflops")
        return dict(lift=dict(lstm_for_free=round(1e3*self.B/(step - self.lstm_ms)) if step > self.lstm_ms else None,
                              at_half_of_the_matmul_rate=round(.5*o["matmul_bf16_tflops"]*1e12/self.flop) if "matmul_bf16_tflops" in o else None,
                              at_the_peak=best and round(best*1e12/self.flop)))

    def run(self):
        with tempfile.TemporaryDirectory() as tmp:
            self.tmp = Path(tmp)
            self.out |= dict(network=network_code(), date=time.strftime("%Y-%m-%d", time.gmtime()), torch=torch.__version__, python=platform.python_version(), cpus=os.cpu_count())
            for f, least in ((self.card, 0), (self.data, 0), (self.parity, 0), (self.training, 60), (self.parts, 30), (self.pt2, 30), (self.from_pack, 45), (self.inference, 20), (self.lift, 0),
                             (self.mask, 20), (self.steps_up, 30), (self.batches, 20), (self.with_wfdb, 15), (self.mixed, 90)): self.section(f, 0 if self.o.cpu else least)
        return self.out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU: a test of this program")
    a.add_argument("--minutes", type=float, default=8, help="sections that no longer fit into so many are left out (default 8)")
    a.add_argument("--json", type=Path, help="file for the result (default: gpu.json beside this program; with --cpu none)")
    o = a.parse_args()
    if not o.cpu and not torch.cuda.is_available():
        print("no CUDA card here: nothing measured; --cpu tests this program"); print(json.dumps(dict(card=None))); return
    if o.cpu: torch.set_num_threads(1)
    else: o.json = o.json or HERE/"gpu.json"
    out = Bench(o).run()
    for k, v in out.items(): print(f"{k:36s} {v}{f'  at least {GOALS[k]:,}' if k in GOALS and not o.cpu else ''}")
    print(json.dumps(out))
    if o.cpu and ("failed" in out or "left_out" in out): sys.exit(1)


if __name__ == "__main__": main()
