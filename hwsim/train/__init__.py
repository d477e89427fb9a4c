"""Quantization-aware training in PyTorch, and the way from a trained module to an executable trace.

Evaluated in float64 (`module.double().eval()`) these modules are what the executor must equal, code for code.
"""

from hwsim.errors import HwsimError

try:
    import torch as _torch
except ImportError:
    raise HwsimError("hwsim.train needs PyTorch: install hwsim[train]") from None

from hwsim.train.analog import NoisyWeights
from hwsim.train.attention import QuantAttention, Recipes
from hwsim.train.checkpoint import ModelConfig, load_checkpoint, read_config, save_checkpoint, ship
from hwsim.train.conformer import QuantConformerBlock
from hwsim.train.convolution import QuantConv1d
from hwsim.train.emit_transducer import convert_language_model, convert_transducer
from hwsim.train.emit_transformer import convert_transformer
from hwsim.train.export import Converted, convert, export
from hwsim.train.fit import FitSettings, fit
from hwsim.train.language_model import QuantLanguageModel
from hwsim.train.loss import transducer_loss
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear
from hwsim.train.network import record
from hwsim.train.quantizers import DynamicQuantizer, FakeQuantizer, LearnedBounds, fake_quantize, quantize
from hwsim.train.recipes import RECIPES, NetworkRecipe, network_recipe
from hwsim.train.recurrent import QuantGRU, QuantLSTM
from hwsim.train.sensitivity import (
    Sensitivity,
    allocate,
    hessian_sensitivity,
    kl_sensitivity,
    on_bits,
    policy_of_bits,
    transducer_outputs,
)
from hwsim.train.store import load_parameters, save_parameters
from hwsim.train.tdnnf import BatchNorm, QuantTdnnf, TdnnfRecipes, fold_batch_norms, mixed_recipes
from hwsim.train.transducer import QuantTransducer
from hwsim.train.transformer import QuantTransformer

__all__ = [
    "RECIPES",
    "BatchNorm",
    "Converted",
    "DynamicQuantizer",
    "FakeQuantizer",
    "FitSettings",
    "LearnedBounds",
    "ModelConfig",
    "NetworkRecipe",
    "NoisyWeights",
    "QuantActivation",
    "QuantAttention",
    "QuantConformerBlock",
    "QuantConv1d",
    "QuantEmbedding",
    "QuantGRU",
    "QuantLSTM",
    "QuantLanguageModel",
    "QuantLayerNorm",
    "QuantLinear",
    "QuantTdnnf",
    "QuantTransducer",
    "QuantTransformer",
    "Recipes",
    "Sensitivity",
    "TdnnfRecipes",
    "allocate",
    "convert",
    "convert_language_model",
    "convert_transducer",
    "convert_transformer",
    "export",
    "fake_quantize",
    "fit",
    "fold_batch_norms",
    "hessian_sensitivity",
    "kl_sensitivity",
    "load_checkpoint",
    "load_parameters",
    "mixed_recipes",
    "network_recipe",
    "on_bits",
    "policy_of_bits",
    "quantize",
    "read_config",
    "record",
    "save_checkpoint",
    "save_parameters",
    "ship",
    "transducer_loss",
    "transducer_outputs",
]
del _torch
