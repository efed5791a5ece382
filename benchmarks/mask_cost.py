#!/usr/bin/env python
"""What it costs that no layer sees the padding: the network with lengths against the same network without (the naive one).

  python benchmarks/mask_cost.py            full network, 55 classes, 500 Hz, 10 s records, one thread, about 3 minutes
  python benchmarks/mask_cost.py --quick    fewer rounds, no count of the traffic

forward_*: evaluation, eager; deployed_*: batch norm folded, against the naive network folded in the same way; train_*: forward, backward, AdamW.
full: every record as long as the batch; mixed: 2.5 s up to the batch's length.
traffic: bytes that a training step of the convolutional part moves when it is compiled for bfloat16, as PyTorch's compiler counts them on this machine: a hint of what
masks cost on a GPU, where memory is the limit, and not a time. Where the compiler counts a whole tensor for one step of it, the aware side looks dearer than it is.

The two take turns in one process, every other round in the other order, and each round gives one ratio, of which the median is printed (and the
smallest time of one over the smallest of the other). The clock is the process' CPU time on one thread, which neighbours on the machine can't spend.
The last line is one JSON object; --json FILE keeps it too."""
import os

os.environ |= dict(OMP_NUM_THREADS="1", ARRHYTHMIA_QUIET="1")  # before torch is there
import argparse, copy, json, platform, time

import numpy as np
import torch

from arrhythmia_classifier.core import write_json
from arrhythmia_classifier.model import ModelConfig, WFDBResNetLSTM, deployed

from timing import network_code

AT_MOST = dict(forward=1.10, train=1.10, deployed=1.05)


def seconds(f):
    t = time.process_time(); f()
    return time.process_time() - t


def ratio(naive, aware, rounds):
    "Median over the rounds of aware/naive, ratio of the fastest, and the naive median in seconds."
    naive(); aware(); times = []
    for k in range(rounds):
        pair = {f: seconds(f) for f in ((naive, aware) if k % 2 else (aware, naive))}
        times.append((pair[naive], pair[aware]))
    n, a = np.array(times).T
    return float(np.median(a/n)), float(a.min()/n.min()), float(np.median(n))


def batch(size, samples, mixed):
    n = torch.full((size,), samples)
    if mixed: n[1:] = torch.linspace(1250, samples, size).long()[:-1]
    return torch.randn(size, 12, samples), n


def step(model, opt, x, n):
    def go():
        opt.zero_grad(set_to_none=True)
        model(x, n).square().mean().backward(); opt.step()
    return go


def traffic(aware, size=16, samples=5000):
    "Bytes a record, forward and backward: stem and stages, a quarter of the records shorter."
    from torch._inductor import config, graph                          # private, and nowhere else can a machine without a GPU ask it
    torch.manual_seed(0); torch._dynamo.reset(); model, seen, codegen = WFDBResNetLSTM(ModelConfig(55)).train(), [], graph.GraphLowering.codegen
    n = torch.full((size,), samples); n[::4] = samples*2//3
    def counted(self): out = codegen(self); seen.append(self.count_bytes()[0]); return out
    graph.GraphLowering.codegen = counted
    try:
        with config.patch(force_disable_caches=True), torch.autocast("cpu", torch.bfloat16):
            for p in (model.stem, *model.stages): p.compile(backend="inductor", dynamic=False)
            x, k, m = model.stem(torch.randn(size, 12, samples), n if aware else None)
            for b in model.stages: x, k, m = b(x, k, m)
            with torch.autocast("cpu", enabled=False): x.float().square().mean().backward()    # compiled now, and counted
    finally: graph.GraphLowering.codegen = codegen
    return sum(seen)/size


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--quick", action="store_true"); a.add_argument("--json")
    o = a.parse_args()
    torch.set_num_threads(1); torch.manual_seed(0)
    model = WFDBResNetLSTM(ModelConfig(55)).eval(); folded = deployed(model)
    shapes = {"b1_full": (1, 5000, False, 60), "b16_full": (16, 5000, False, 24), "b16_mixed": (16, 5000, True, 24)}
    out, scale = {}, 4 if o.quick else 1

    def note(name, r):
        out[name] = round(r[0], 3)
        print(f"{name:20} {r[0]:.3f} (fastest {r[1]:.3f}), naive {1e3*r[2]:.1f} ms", flush=True)

    with torch.inference_mode():
        for name, (size, samples, mixed, rounds) in shapes.items():
            x, n = batch(size, samples, mixed)
            for kind, net in (("forward", model), ("deployed", folded.model)):
                note(f"{kind}_{name}", ratio(lambda: net(x, None), lambda: net(x, n), rounds//scale))
            note(f"deployed_vs_eager_{name}", ratio(lambda: model(x, None), lambda: folded(x, n), rounds//scale))
    for name, mixed in (("b32_full", False), ("b32_mixed", True)):
        x, n = batch(32, 5000, mixed); steps = []
        for lengths in (None, n if mixed else None):
            net = copy.deepcopy(model).train(); steps.append(step(net, torch.optim.AdamW(net.parameters()), x, lengths))
        if mixed: note(f"train_{name}", ratio(*steps, 8//scale))
        else:
            net = copy.deepcopy(model).train(); note(f"train_{name}", ratio(steps[0], step(net, torch.optim.AdamW(net.parameters()), x, n), 8//scale))
    if not o.quick:
        naive, aware = traffic(False), traffic(True); out |= dict(traffic_mb=round(aware/1e6, 1), traffic_naive_mb=round(naive/1e6, 1), traffic=round(aware/naive, 3))
        print(f"{'traffic':20} {out['traffic']:.3f}, naive {out['traffic_naive_mb']} MB a record", flush=True)
    worst = {k: max(v for name, v in out.items() if name.startswith(k) and "_vs_" not in name) for k in AT_MOST}
    out |= dict(mask_cost=worst, mask_cost_at_most=AT_MOST, met={k: worst[k] <= AT_MOST[k] for k in AT_MOST}, network=network_code(),
                machine=f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread")
    if o.json: write_json(o.json, out)
    print(json.dumps(out))


if __name__ == "__main__": main()
