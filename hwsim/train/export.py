"""From a trained module to an executable trace: its operations, its codes and its grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.projection import AnyGrid
from hwsim.execute.recurrence import LstmRules
from hwsim.trace import Trace, TraceBuilder
from hwsim.train.attention import QuantAttention
from hwsim.train.conformer import QuantConformerBlock
from hwsim.train.convolution import QuantConv1d
from hwsim.train.draft import Draft
from hwsim.train.emit_conformer import attention, conformer_block
from hwsim.train.emit_layers import activation, conv1d, embedding, layer_norm, linear
from hwsim.train.emit_recurrent import recurrent
from hwsim.train.emit_tdnnf import tdnnf
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear
from hwsim.train.network import named_parts
from hwsim.train.recurrent import QuantGRU, QuantLSTM
from hwsim.train.tdnnf import QuantTdnnf

EMIT: dict[type, Callable[..., None]] = {
    QuantActivation: activation,
    QuantAttention: attention,
    QuantConformerBlock: conformer_block,
    QuantConv1d: conv1d,
    QuantEmbedding: embedding,
    QuantGRU: recurrent,
    QuantLSTM: recurrent,
    QuantLayerNorm: layer_norm,
    QuantLinear: linear,
    QuantTdnnf: tdnnf,
}


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A network as a trace, the codes (or reals) of its parameters, and its grids: what an `Executable` is made of."""

    trace: Trace
    codes: dict[str, Any]
    quantizers: dict[str, AnyGrid]
    rules: LstmRules

    def executable(self) -> Executable:
        """Packed, ready to run."""
        return Executable(self.trace, self.codes, self.quantizers, rules=self.rules)


def export(module: nn.Module, frames: int, name: str = "network") -> Executable:
    """The executable of `convert`, whose arguments these are."""
    return convert(module, frames, name).executable()


def convert(module: nn.Module, frames: int, name: str = "network") -> Converted:
    """The trace, codes and grids of a network for utterances of `frames` steps.

    `module`: one of `network.PARTS`, or an `nn.Sequential` of them with names, which become layer names: `encoder`
    gives `encoder.layer0.forward_wx` and so on, as the catalogue's networks have them. The input is
    `<first>.input.features` (frames, K), or `<first>.labels` (frames,) of an embedding. Weights have the codes that
    the module's own precision gives them, activations float64 grids: convert `module.double()` for T1.
    Raises HwsimError for other modules, for grids that were never calibrated, for grids of run time of another recipe
    than `NativeQat` and in places that must have a fixed one (states, scores, inputs of convolutions), and for inputs
    that a module would have to put on another grid than they are stored on where the operation reads them as they are.
    """
    if frames < 1:
        raise HwsimError(f"frames must be at least 1, got {frames}")
    draft = Draft(TraceBuilder(name, {"frames": frames}), frames)
    for title, part in named_parts(module, name):
        emit = next(EMIT[kind] for kind in type(part).__mro__ if kind in EMIT)
        emit(draft, title, part)
    rules = LstmRules(gate_order=draft.gate_order or "ifgo")
    return Converted(draft.builder.build(), draft.codes, draft.quantizers, rules)
