"""A user's own transducer, of quantized modules: its networks as executables of a search, and as its float64 graph.

The layers are named as those of the catalogue's networks, so that policies and workload files speak of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.decode.prefixes import Array, LabelNetwork, Nodes, States
from hwsim.decode.settings import Fusion
from hwsim.errors import HwsimError
from hwsim.execute.recurrence import LstmRules
from hwsim.numerics.rounding import Reals
from hwsim.recognize import Recognizer
from hwsim.recognize.networks import ENCODER_SIDE, FEATURES, PREDICTION_SIDE
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand
from hwsim.train.draft import Draft
from hwsim.train.emit_recurrent import recurrent_step
from hwsim.train.export import EMIT, Converted
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLinear, QuantModule
from hwsim.train.network import named_parts
from hwsim.train.recurrent import QuantGRU, QuantLSTM, QuantRecurrent

COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "multiply": torch.mul}
JOINT_FUNCTIONS = ("relu", "tanh")
Parts = list[tuple[str, QuantModule]]


def export_recognizer(
    encoder: nn.Sequential, prediction: nn.Sequential, joint: nn.Sequential, words: Sequence[str], *,
    language_models: Mapping[str, nn.Sequential] | None = None, fusions: Mapping[str, Fusion] | None = None,
    about: Mapping[str, Any] | None = None, frames: int = 512, rows: int = 64, combine: str = "add",
) -> Recognizer:  # fmt: skip
    """A recognizer of three networks and of language models, each an `nn.Sequential` of quantized modules.

    - `encoder`: features (T, K) -> (T, J); the last module is a QuantLinear, the joint's projection of it.
    - `prediction`: labels -> (U, J); the first is a QuantEmbedding, the last a QuantLinear.
    - `joint`: (..., J) -> logits (..., V + 1), blank first: a QuantActivation (tanh or relu) of the sum of both sides
      (of their product with `combine` multiply), then a QuantLinear.
    - `language_models`: `external_lm`, `source_lm`: labels -> logits (U, V + 1), the end of the sentence first.

    Give modules in float64 (`.double().eval()`): the executables then equal them, code for code. `frames`, `rows`:
    most frames and hypotheses of one run; longer utterances and wider beams go through in pieces. Raises HwsimError
    for networks of other modules and as `convert`.
    """
    networks = {
        "encoder": _encoder(encoder, frames),
        "prediction": _steps(prediction, "prediction", "joint.prediction_projection", rows),
        "joint": _joint(joint, combine, rows),
    }
    for name, model in (language_models or {}).items():
        networks[name] = _steps(model, name, f"{name}.output", rows, labels=True)
    executables = {name: part.executable() for name, part in networks.items()}
    return Recognizer(executables, tuple(words), 1, fusions or {}, about or {})


class ModuleTransducer:
    """The same three networks in float64 as `decode.beam.Transducer`, which a decode in integers must equal."""

    def __init__(self, encoder: nn.Sequential, prediction: nn.Sequential, joint: nn.Sequential,
                 combine: str = "add") -> None:  # fmt: skip
        self._encoder, self._joint, self._combine = encoder, joint, _combination(combine)
        self.prediction: LabelNetwork = ModuleSteps(prediction)

    @torch.no_grad()
    def encode(self, features: Array) -> Reals:
        """Projected encoder frames (T, J) of an utterance (T, K)."""
        encoded: Reals = self._encoder(torch.as_tensor(features, dtype=torch.float64)).numpy()
        return encoded

    @torch.no_grad()
    def joint(self, frames: Array, predicted: Array) -> Reals:
        """Log probabilities (R, V + 1) of rows of both projections (R, J)."""
        both = self._combine(torch.as_tensor(frames), torch.as_tensor(predicted))
        log_p: Reals = self._joint(both).log_softmax(-1).numpy()
        return log_p


class ModuleSteps:
    """An `nn.Sequential` that reads labels, one step of a search at a time; `log_softmax` of a language model."""

    def __init__(self, network: nn.Sequential, log_softmax: bool = False) -> None:
        self._parts, self._log_softmax = [part for _, part in named_parts(network)], log_softmax

    @property
    def _recurrent(self) -> list[QuantRecurrent]:
        return [part for part in self._parts if isinstance(part, QuantRecurrent)]

    def start(self) -> States:
        """Zero states, (1, H) each."""
        return tuple(s.detach().numpy() for part in self._recurrent for layer in part.start(1) for s in layer)

    @torch.no_grad()
    def step(self, labels: Nodes, states: States) -> tuple[Array, States]:
        """Outputs (R, N) and new states (R, H) after labels (R,)."""
        given, after = iter(states), []
        x = torch.as_tensor(labels)
        for part in self._parts:
            if not isinstance(part, QuantRecurrent):
                x = part(x)
                continue
            before = [tuple(torch.as_tensor(next(given)) for _ in range(part.STATES)) for _ in range(part.layers)]
            x, new = part.step(x, before)
            after += [state.numpy() for layer in new for state in layer]
        return (x.log_softmax(-1) if self._log_softmax else x).numpy(), tuple(after)


def _encoder(network: nn.Sequential, frames: int) -> Converted:
    parts = _titled(network, "encoder", "joint.encoder_projection")
    for title, part in parts:
        if isinstance(part, QuantGRU | QuantEmbedding):
            raise HwsimError(f"{title}: must be a QuantLSTM or another module that reads frames, got "
                             f"{type(part).__name__}")  # fmt: skip
    whole = _finished(_draft("encoder", "frames", frames), parts)
    return _renamed(whole, f"{parts[0][0]}.input.features", FEATURES)


def _steps(network: nn.Sequential, name: str, last: str, rows: int, labels: bool = False) -> Converted:
    parts = _titled(network, name, last)
    if not isinstance(parts[0][1], QuantEmbedding):
        raise HwsimError(f"{name}: must begin with a QuantEmbedding, got {type(parts[0][1]).__name__}")
    return _finished(_draft(name, "rows", rows), parts, steps=True, labels=labels)


def _joint(network: nn.Sequential, combine: str, rows: int) -> Converted:
    _combination(combine)
    parts = [part for _, part in named_parts(network)]
    kinds = [type(part).__name__ for part in parts]
    if kinds != ["QuantActivation", "QuantLinear"]:
        raise HwsimError(f"joint: must be a QuantActivation and a QuantLinear, got {', '.join(kinds)}")
    activation, output = parts
    assert isinstance(activation, QuantActivation)
    assert isinstance(output, QuantLinear)
    if activation.function not in JOINT_FUNCTIONS:
        raise HwsimError(f"joint: its function must be {' or '.join(JOINT_FUNCTIONS)}, got {activation.function}")
    draft, size = _draft("joint", "rows", rows), output.weight.shape[1]
    b, name = draft.builder, "joint.output.hidden"
    sides = [b.tensor(side, Role.STATE, (rows, size)) for side in (ENCODER_SIDE, PREDICTION_SIDE)]
    hidden = b.tensor(name, Role.ACTIVATION, (rows, size))
    b.op(Kind.ELEMENTWISE, "joint.output", [Operand(side, size) for side in sides], [Operand(hidden, size)], m=rows,
         n=size, function=Function[f"{combine}_{activation.function}".upper()])  # fmt: skip
    draft.activation(name, activation.output_grid)
    draft.x, draft.width = [hidden], size
    return _finished(draft, [("joint.output", output)], labels=True)


def _titled(network: nn.Sequential, name: str, last: str) -> Parts:
    """The modules with the names that the catalogue's networks give such layers."""
    parts = [part for _, part in named_parts(network)]
    children = [name for name, _ in network.named_children()]
    single = sum(isinstance(part, QuantRecurrent) for part in parts) == 1
    titles: Parts = []
    for child, part in zip(children, parts, strict=False):
        title = f"{name}.{child}"
        if isinstance(part, QuantEmbedding):
            title = f"{name}.embedding"
        elif isinstance(part, QuantRecurrent) and single:
            title = name
        titles.append((title, part))
    if not titles or not isinstance(parts[-1], QuantLinear) or parts[-1].output_grid is not None:
        got = type(parts[-1]).__name__ if titles else type(network).__name__
        raise HwsimError(f"{name}: must be an nn.Sequential that ends with a QuantLinear without an output grid, got "
                         f"{got}")  # fmt: skip
    return [*titles[:-1], (last, parts[-1])]


def _draft(name: str, what: str, rows: int) -> Draft:
    if rows < 1:
        raise HwsimError(f"{what} must be at least 1, got {rows}")
    return Draft(TraceBuilder(name, {"frames": rows}), rows)


def _finished(draft: Draft, parts: Parts, steps: bool = False, labels: bool = False) -> Converted:
    """The modules in their order; with `labels` the outputs of the last become log probabilities, `<layer>.logits`."""
    for title, part in parts:
        if steps and isinstance(part, QuantLSTM | QuantGRU):
            recurrent_step(draft, title, part)
        else:
            next(EMIT[kind] for kind in type(part).__mro__ if kind in EMIT)(draft, title, part)
    last = parts[-1][0]
    if labels:
        out = Operand(draft.x[0], draft.width)
        draft.builder.op(Kind.SOFTMAX, last, [out], [out], m=draft.frames, n=draft.width)
    rules = LstmRules(gate_order=draft.gate_order or "ifgo")
    made = Converted(draft.builder.build(), draft.codes, draft.quantizers, rules)
    return _renamed(made, f"{last}.out", f"{last}.logits") if labels else made


def _renamed(made: Converted, old: str, new: str) -> Converted:
    """The same network, one tensor of another name."""
    tensors = tuple(replace(t, name=new) if t.name == old else t for t in made.trace.tensors)
    grids = {new if name == old else name: grid for name, grid in made.quantizers.items()}
    return replace(made, trace=replace(made.trace, tensors=tensors), quantizers=grids)


def _combination(combine: str) -> Callable[[Tensor, Tensor], Tensor]:
    if combine not in COMBINE:
        raise HwsimError(f"combine must be {' or '.join(COMBINE)}, got {combine!r}")
    return COMBINE[combine]
