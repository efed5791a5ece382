"""The same network in every form it can be served in: each engine is a function `(signal, lengths) -> logits` on numpy arrays, one thread.

What an engine needs and does not find is its reason to be absent; the benchmark goes on without it."""
import subprocess, sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from arrhythmia_classifier.classifier import Classifier
from arrhythmia_classifier.labels import Label, Vocabulary
from arrhythmia_classifier.model import ModelConfig, WFDBResNetLSTM, fold_batchnorm
from arrhythmia_classifier.onnx_export import OnnxNetwork, export_onnx, quantise
from arrhythmia_classifier.pt2 import load_pt2, lstm_any_length


def network(signals, n_classes=71, seed=0):
    "The full-size network with random weights, whose batch norm has seen `signals`."
    torch.manual_seed(seed)
    net, x = WFDBResNetLSTM(ModelConfig(n_classes, dropout=0.)).train(), torch.from_numpy(np.stack(signals))
    with torch.no_grad():
        for _ in range(20): net(x)
    return net.eval()


def to_onnx(net, path, samples=5000, masked=True):
    "ONNX of a network that the library does not export, time and batch dynamic; not masked: it takes the signal alone."
    from torch.export import Dim, export
    class Naive(nn.Module):
        def __init__(self): super().__init__(); self.net = net
        def forward(self, signal): return self.net(signal)
    class Masked(Naive):
        def forward(self, signal, lengths): return self.net(signal, lengths)
    batch, time = Dim("batch", min=1, max=1024), Dim("samples", min=200, max=1 << 20)
    args, shapes = (torch.zeros(2, 12, samples), torch.full((2,), samples)), ({0: batch, 2: time}, {0: batch})
    module, k = (Masked, 2) if masked else (Naive, 1)
    with lstm_any_length(), torch.no_grad():
        ep = export(module().eval(), args[:k], dynamic_shapes=shapes[:k])
        torch.onnx.export(ep, dynamo=True, opset_version=20, verbose=False, input_names=["signal", "lengths"][:k], output_names=["logits"]).save(str(path))
    return path


def int8(src, path, signals):
    "The library's int8 scheme (static convolutions and gates, a scale a channel), for networks that the library does not export."
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    class Reader(CalibrationDataReader):
        def __init__(self): self.left = iter(signals)
        def get_next(self): return next((feed(src, x[None], np.array([x.shape[1]])) for x in self.left), None)
    quantize_static(str(src), str(path), Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv", "Gemm"], per_channel=True,
                    reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return path


def feed(src, x, n):
    import onnx
    names = [i.name for i in onnx.load(str(src), load_external_data=False).graph.input]
    return {k: v for k, v in dict(signal=x, lengths=n).items() if k in names}


def session(path, threads=1, profile=None):
    "onnxruntime, waiting asleep instead of spinning."
    import onnxruntime as ort
    o = ort.SessionOptions(); o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile: o.enable_profiling, o.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def onnx_engine(path, threads=1):
    "As the library serves the file."
    net = OnnxNetwork(path, threads, contrib="lstm" in Path(path).name)
    return lambda x, n: net.run(x, n)[0]


def ort_engine(path, threads=1):
    "A file that the library did not write."
    s = session(path, threads); names = [i.name for i in s.get_inputs()]; first = [s.get_outputs()[0].name]
    return lambda x, n: s.run(first, {k: v for k, v in dict(signal=x, lengths=n).items() if k in names})[0]


def torch_engine(net, masked=True, bf16=False):
    def run(x, n):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            z = net(torch.from_numpy(x), torch.from_numpy(n)) if masked else net(torch.from_numpy(x))
            return (z[0] if isinstance(z, tuple) else z).float().numpy()
    return run


def bf16_engine(net):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported(): raise RuntimeError("the processor has no bfloat16 (AVX-512 BF16 or AMX)")
    return torch_engine(net, bf16=True)


def openvino_engine(path, precision="f32", threads=1):
    import openvino as ov
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"): raise RuntimeError("the processor has no bfloat16")
    how = dict(INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1, INFERENCE_PRECISION_HINT=precision, ENABLE_CPU_PINNING=False)
    made = core.compile_model(core.read_model(str(path)), "CPU", how)
    request = made.create_infer_request()
    return lambda x, n: request.infer(dict(signal=x, lengths=n))[0].copy()


def aoti_engine(pt2, package):
    "AOTInductor; compiled in a fresh process, because the one that exported can't. It asks for example inputs, which our archives don't hold."
    code = ("import sys, torch; torch.set_num_threads(1); ep = torch.export.load(sys.argv[1]); "
            "ep._example_inputs = ((torch.zeros(2, 12, 5000), torch.full((2,), 5000)), {}); "
            "torch._inductor.aoti_compile_and_package(ep, package_path=sys.argv[2])")
    r = subprocess.run([sys.executable, "-c", code, str(pt2), str(package)], capture_output=True, text=True)
    if r.returncode: raise RuntimeError((r.stderr.strip() or "failed").splitlines()[-1][:200])
    return torch_engine(torch._inductor.aoti_load_package(str(package)))


def compiled_engine(net):
    "torch.compile, once for each shape it meets."
    return torch_engine(torch.compile(net, dynamic=False))


def deployed_files(net, folder, signals):
    "`model.pt2`, `fp32.onnx`, `int8.onnx` and `int8_lstm.onnx`, as the library writes them."
    folder = Path(folder); vocab = Vocabulary([Label(str(k), f"C{k}", f"class {k}") for k in range(net.config.n_classes)])
    c = Classifier.load(Classifier.from_model(net, vocab).save(folder/"classifier")); (folder/"classifier"/"model.pt2").rename(folder/"model.pt2")
    export_onnx(c, folder/"fp32.onnx")
    for scheme, name in (("static", "int8"), ("static+dynamic", "int8_lstm")):
        quantise(folder/"fp32.onnx", folder/f"{name}.onnx", scheme, [(x[None], np.array([x.shape[1]])) for x in signals])
    return folder


def engines(net, folder, quick=False):
    "Name -> (how to make the engine, the file that it serves)."
    f = Path(folder); onnx = lambda name: (partial(onnx_engine, f/name), name)
    all_ = dict(eager=(partial(torch_engine, net, False), None), eager_masked=(partial(torch_engine, net), None),
                eager_folded=(lambda: torch_engine(fold_batchnorm(net)), None), eager_bf16=(partial(bf16_engine, net), None),
                pt2=(lambda: torch_engine(load_pt2(f/"model.pt2")), "model.pt2"),
                onnxruntime_fp32=onnx("fp32.onnx"), onnxruntime_int8=onnx("int8.onnx"), onnxruntime_int8_lstm=onnx("int8_lstm.onnx"))
    if quick: return all_
    return all_ | dict(compiled=(lambda: compiled_engine(fold_batchnorm(net)), None),
                       aotinductor=(partial(aoti_engine, f/"model.pt2", f/"aoti.pt2"), "aoti.pt2"),
                       openvino_fp32=(partial(openvino_engine, f/"fp32.onnx"), "fp32.onnx"),
                       openvino_bf16=(partial(openvino_engine, f/"fp32.onnx", "bf16"), "fp32.onnx"),
                       openvino_int8=(partial(openvino_engine, f/"int8.onnx"), "int8.onnx"))
