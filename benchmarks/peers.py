"""Networks of others that we measure ourselves against, written anew and small; all take `(B, 12, T)` in mV and give `(B, n_classes)` logits.

  xresnet1d101   Strodthoff et al. 2021 (doi 10.1109/JBHI.2020.3022989), the best single network of their PTB-XL benchmark: bottleneck blocks
                 3, 4, 23, 3 of one width, kernel 5, average pooling on the shortcut, mean and maximum over time
  bilstm         the benchmark's `lstm_bidir`: two layers of 256 a direction on the samples themselves, mean, maximum and last states
  torch_ecg_crnn the default ECG_CRNN of the package torch-ecg (pip install torch-ecg), where that is installed

None of them masks the padding: `lengths` is taken and ignored, so that our training loop can drive them."""
import torch
import torch.nn.functional as F
from torch import nn


def conv(c_in, c_out, kernel, stride=1, relu=True, zero=False):
    "Convolution, batch norm, ReLU; `zero`: the norm begins at 0, so that a residual block begins as its shortcut."
    c, b = nn.Conv1d(c_in, c_out, kernel, stride, kernel//2, bias=False), nn.BatchNorm1d(c_out)
    nn.init.kaiming_normal_(c.weight); nn.init.constant_(b.bias, 1e-3); nn.init.constant_(b.weight, 0. if zero else 1.)
    return nn.Sequential(c, b, *[nn.ReLU(inplace=True)]*relu)


class Bottleneck(nn.Module):
    "1, kernel, 1, with four times the width at both ends."
    def __init__(self, c_in, width, stride, kernel):
        super().__init__()
        self.path = nn.Sequential(conv(c_in, width, 1), conv(width, width, kernel, stride), conv(width, 4*width, 1, relu=False, zero=True))
        pool = nn.AvgPool1d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.short = nn.Sequential(pool, nn.Identity() if c_in == 4*width else conv(c_in, 4*width, 1, relu=False))

    def forward(self, x): return F.relu(self.path(x) + self.short(x))


def head(features, n_classes):
    "Batch norm, dropout, linear."
    out = nn.Linear(features, n_classes); nn.init.kaiming_normal_(out.weight); nn.init.zeros_(out.bias)
    return nn.Sequential(nn.BatchNorm1d(features), nn.Dropout(.5), out)


class XResNet1d(nn.Module):
    "xresnet1d with bottlenecks: `(3, 4, 23, 3)` is the 101, `(3, 4, 6, 3)` the 50."
    def __init__(self, n_classes, blocks=(3, 4, 23, 3), width=64, kernel=5, leads=12):
        super().__init__()
        self.stem = nn.Sequential(conv(leads, 32, 5, 2), conv(32, 32, 5), conv(32, 64, 5), nn.MaxPool1d(3, 2, 1))
        self.blocks = nn.Sequential(*[Bottleneck(64 if s == i == 0 else 4*width, width, 2 if s and not i else 1, kernel)
                                      for s, n in enumerate(blocks) for i in range(n)])
        self.head = head(8*width, n_classes)

    def forward(self, x, lengths=None):
        x = self.blocks(self.stem(x))
        return self.head(torch.cat([x.mean(2), x.amax(2)], 1))


class BiLSTM(nn.Module):
    "Two bidirectional LSTM layers on the samples; mean, maximum, the forward half's last state and the backward half's first."
    def __init__(self, n_classes, hidden=256, layers=2, leads=12):
        super().__init__()
        self.hidden, self.lstm, self.head = hidden, nn.LSTM(leads, hidden, layers, batch_first=True, bidirectional=True), head(6*hidden, n_classes)

    def forward(self, x, lengths=None):
        h = self.lstm(x.transpose(1, 2))[0]
        return self.head(torch.cat([h.mean(1), h.amax(1), h[:, -1, :self.hidden], h[:, 0, self.hidden:]], 1))


class TorchECG(nn.Module):
    "torch-ecg's ECG_CRNN as its default configuration builds it."
    def __init__(self, n_classes, leads=12):
        super().__init__()
        from torch_ecg.model_configs import ECG_CRNN_CONFIG
        from torch_ecg.models import ECG_CRNN
        self.net = ECG_CRNN(classes=[str(k) for k in range(n_classes)], n_leads=leads, config=ECG_CRNN_CONFIG)

    def forward(self, x, lengths=None): return self.net(x)


PEERS = dict(xresnet1d101=XResNet1d, bilstm=BiLSTM, torch_ecg=TorchECG)


def parameters(net): return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def macs(net, *inputs):
    "Multiplications of convolutions, linear layers and LSTMs in one forward pass."
    total = 0
    def count(m, args, out):
        nonlocal total
        if isinstance(m, nn.Conv1d): total += out.numel()*m.weight[0].numel()
        elif isinstance(m, nn.Linear): total += out.numel()*m.in_features
        elif isinstance(m, (nn.LSTM, nn.GRU)): total += args[0].shape[0]*args[0].shape[1]*sum(w.numel() for n, w in m.named_parameters() if n.startswith("weight"))
    hooks = [m.register_forward_hook(count) for m in net.modules()]
    try: net(*inputs)
    finally: [h.remove() for h in hooks]
    return total
