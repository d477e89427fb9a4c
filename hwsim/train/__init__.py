"""Quantization-aware training in PyTorch, and the way from a trained module to an executable trace.

Evaluated in float64 (`module.double().eval()`) these modules are what the executor must equal, code for code.
"""

from hwsim.errors import HwsimError

try:
    import torch as _torch
except ImportError:
    raise HwsimError("hwsim.train needs PyTorch: install hwsim[torch]") from None

from hwsim.train.attention import QuantAttention, Recipes
from hwsim.train.conformer import QuantConformerBlock
from hwsim.train.convolution import QuantConv1d
from hwsim.train.export import Converted, convert, export
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear
from hwsim.train.network import record
from hwsim.train.quantizers import DynamicQuantizer, FakeQuantizer, LearnedBounds, fake_quantize, quantize
from hwsim.train.recurrent import QuantGRU, QuantLSTM
from hwsim.train.store import load_parameters, save_parameters

__all__ = [
    "Converted",
    "DynamicQuantizer",
    "FakeQuantizer",
    "LearnedBounds",
    "QuantActivation",
    "QuantAttention",
    "QuantConformerBlock",
    "QuantConv1d",
    "QuantEmbedding",
    "QuantGRU",
    "QuantLSTM",
    "QuantLayerNorm",
    "QuantLinear",
    "Recipes",
    "convert",
    "export",
    "fake_quantize",
    "load_parameters",
    "quantize",
    "record",
    "save_parameters",
]
del _torch
