"""What other structures would cost: multiplications and measured speed of the network with one part changed, random weights, full lengths, one thread.

It says which are worth training, not which are as good: that takes a training run each."""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from arrhythmia_classifier.layers import BiLSTM
from arrhythmia_classifier.model import ModelConfig, WFDBResNetLSTM, fold_batchnorm

from engines import int8, ort_engine, to_onnx, torch_engine
from peers import macs, parameters
from timing import ratio, turns


class HalfSteps(nn.Module):
    "The stem's max pooling by 2 (average pooling pins the time axis in export), then the LSTM."
    def __init__(self, lstm): super().__init__(); self.lstm = lstm
    def forward(self, x, n=None): return self.lstm(F.max_pool2d(x.transpose(1, 2).unsqueeze(2), (1, 3), (1, 2), (0, 1)).squeeze(2).transpose(1, 2))


class Narrowed(nn.Module):
    "A 1×1 projection, then the LSTM."
    def __init__(self, c_in, c_out, lstm): super().__init__(); self.project, self.lstm = nn.Linear(c_in, c_out), lstm
    def forward(self, x, n=None): return self.lstm(self.project(x))


class NoLSTM(nn.Module):
    def forward(self, x, n=None): return x


def each_conv(net, make, stages=(4, 5)):
    "make(conv) in place of the wide convolutions of these blocks."
    for k in stages:
        for name in ("conv1", "conv2"): setattr(net.stages[k], name, make(getattr(net.stages[k], name)))
    return net


def rebuilt(c, kernel=None, groups=1):
    k = kernel or c.kernel_size[0]
    return nn.Conv1d(c.in_channels, c.out_channels, k, c.stride[0], k//2, groups=groups, bias=False)


class Separable(nn.Conv1d):
    "A convolution a channel, then this one, 1×1."
    def __init__(self, c):
        super().__init__(c.in_channels, c.out_channels, 1, bias=False)
        self.depth = nn.Conv1d(c.in_channels, c.in_channels, c.kernel_size[0], c.stride[0], c.kernel_size[0]//2, groups=c.in_channels, bias=False)
    def forward(self, x): return super().forward(self.depth(x))


def part(net, name, f):
    setattr(net, name, f(getattr(net, name))); return net


def config(**kw): return lambda: WFDBResNetLSTM(ModelConfig(71, **kw))


base, half = config(), lambda net: part(net, "lstm", HalfSteps)
VARIANTS = dict(
    base=base,
    lstm_half_steps=lambda: half(base()),
    lstm_hidden_96=config(hidden=96),
    lstm_hidden_64=config(hidden=64),
    lstm_one_layer=config(lstm_layers=1),
    lstm_input_128=lambda: part(base(), "lstm", lambda _: Narrowed(256, 128, BiLSTM(128, 128, 2))),
    no_lstm=lambda: part(base(), "lstm", lambda _: NoLSTM()),
    stage3_stride_4=config(strides=(1, 2, 4)),
    stage1_stride_2=config(strides=(2, 2, 2)),
    stage3_width_192=config(channels=(64, 128, 192)),
    stage3_one_block=lambda: part(base(), "stages", lambda s: s[:5]),
    stage3_kernel_3=lambda: each_conv(base(), lambda c: rebuilt(c, 3)),
    stage3_groups_4=lambda: each_conv(base(), lambda c: rebuilt(c, groups=4)),
    stage3_separable=lambda: each_conv(base(), Separable),
    kernel_5=config(kernel=5),
    half_steps_kernel_5=lambda: half(config(kernel=5)()),
    half_steps_stage3_kernel_3=lambda: half(each_conv(base(), lambda c: rebuilt(c, 3))),
    stage1_stride_2_half_width=config(strides=(2, 2, 2), channels=(64, 96, 128), hidden=64))


def compare(records, folder, rounds, names=VARIANTS):
    "`{variant: macs_m, parameters, and how many times faster than the base: eager, fp32, int8 of one record, int8_8 of eight}`."
    one, eight = np.stack(records[:1]), np.stack((records*8)[:8]); n1, n8 = np.full(1, one.shape[2]), np.full(8, one.shape[2])
    rows, ways = {}, {}
    for name in names:
        torch.manual_seed(0); net = VARIANTS[name]().eval(); f = Path(folder)/f"{name}.onnx"; q = f.with_suffix(".int8.onnx")
        rows[name] = dict(macs_m=round(macs(net, torch.from_numpy(one))/1e6), parameters=parameters(net))
        flat = fold_batchnorm(net); e, s32, s8 = torch_engine(flat, False), ort_engine(to_onnx(flat, f, masked=False)), ort_engine(int8(f, q, records[:2]))
        for key, engine, x, n in (("eager", e, one, n1), ("fp32", s32, one, n1), ("int8", s8, one, n1), ("int8_8", s8, eight, n8)):
            ways[name, key] = lambda engine=engine, x=x, n=n: engine(x, n)
        print(f"  made {name}", flush=True)
    for key in ("eager", "fp32", "int8", "int8_8"):
        t = turns({k[0]: f for k, f in ways.items() if k[1] == key}, 2*rounds, 2)
        for name, row in rows.items(): row[key] = ratio(t, "base", name)
        rows["base"][f"{key}_ms"] = round(1e3*float(np.median(t["base"])), 2)
    return rows
