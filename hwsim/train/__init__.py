"""Quantization-aware training in PyTorch, and the way from a trained module to an executable trace.

Evaluated in float64 (`module.double().eval()`) these modules are what the executor must equal, code for code.
"""

from hwsim.errors import HwsimError

try:
    import torch as _torch
except ImportError:
    raise HwsimError("hwsim.train needs PyTorch: install hwsim[torch]") from None

from hwsim.train.export import Converted, convert, export
from hwsim.train.modules import QuantEmbedding, QuantLinear, QuantLSTM, record
from hwsim.train.quantizers import FakeQuantizer, LearnedBounds, fake_quantize, quantize
from hwsim.train.store import load_parameters, save_parameters

__all__ = [
    "Converted",
    "FakeQuantizer",
    "LearnedBounds",
    "QuantEmbedding",
    "QuantLSTM",
    "QuantLinear",
    "convert",
    "export",
    "fake_quantize",
    "load_parameters",
    "quantize",
    "record",
    "save_parameters",
]
del _torch
