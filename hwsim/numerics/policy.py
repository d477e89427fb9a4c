"""Precision policies: which number format each layer of a network uses.

A policy is a default and rules, each a glob over dotted layer names (`encoder.layer0`, `joint.*`) with the
formats that it sets. Rules apply in order, field by field: a later rule overrides an earlier one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path

from hwsim import catalogue
from hwsim.errors import HwsimError, nearest
from hwsim.numerics.formats import BASES, NumberFormat

CATALOGUE = "workloads/policies"

_STATE = NumberFormat("fp16")
_BIAS = NumberFormat("fp32")


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """The number formats of one layer.

    `weights`: any format. `activations`: inputs and outputs of the layer; for a recurrent layer the hidden
    state too, which is multiplied by weights. `state`: what stays inside the layer and is not multiplied by
    weights, such as the LSTM cell. `bias`: what is added to the products.
    Raises HwsimError when one of the last three is a codebook or N:M sparse: those are formats of weights.
    """

    weights: NumberFormat
    activations: NumberFormat
    state: NumberFormat
    bias: NumberFormat

    def __post_init__(self) -> None:
        for name in ("activations", "state", "bias"):
            fmt = getattr(self, name)
            if not is_dense(fmt):
                raise HwsimError(f"{name} must be a dense int or float format, got {fmt}")

    @classmethod
    def same(cls, fmt: NumberFormat) -> LayerPrecision:
        """One format for weights, activations, state and bias."""
        return cls(fmt, fmt, fmt, fmt)


@dataclass(frozen=True, slots=True)
class PartialPrecision:
    """The fields of `LayerPrecision` that a rule sets; None leaves a field as it was.

    `optional` says that the rule may match no layer (`*.embedding` in a network without one).
    """

    weights: NumberFormat | None = None
    activations: NumberFormat | None = None
    state: NumberFormat | None = None
    bias: NumberFormat | None = None
    optional: bool = False

    @classmethod
    def same(cls, fmt: NumberFormat) -> PartialPrecision:
        """One format for weights, activations, state and bias."""
        return cls(fmt, fmt, fmt, fmt)

    def over(self, below: LayerPrecision) -> LayerPrecision:
        """`below` with the fields that are set here."""
        return LayerPrecision(*((getattr(self, f.name) or getattr(below, f.name)) for f in fields(LayerPrecision)))


@dataclass(frozen=True)
class PrecisionPolicy:
    """A named map from layer names to number formats."""

    name: str
    rules: tuple[tuple[str, PartialPrecision], ...]
    default: LayerPrecision
    assumption: str = field(default="", compare=False)
    """What the policy's file chose beyond what its source publishes, and why."""
    _resolved: dict[str, LayerPrecision] = field(default_factory=dict, init=False, repr=False, compare=False)

    def resolve(self, layer: str) -> LayerPrecision:
        """The formats of a layer: the default, then each rule whose glob matches, in order."""
        if layer not in self._resolved:
            precision = self.default
            for glob, partial in self.rules:
                if fnmatchcase(layer, glob):
                    precision = partial.over(precision)
            self._resolved[layer] = precision
        return self._resolved[layer]

    def unused(self, layers: Iterable[str]) -> list[str]:
        """Globs, in order, that match none of the layers; optional rules are not counted."""
        known = list(layers)
        return [
            glob
            for glob, partial in self.rules
            if not partial.optional and not any(fnmatchcase(layer, glob) for layer in known)
        ]

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what the policy does: default and rules, but not its name."""
        lines = [f"{f.name}={getattr(self.default, f.name)}" for f in fields(LayerPrecision)]
        for glob, partial in self.rules:
            formats = [f"{f.name}={getattr(partial, f.name) or ''}" for f in fields(LayerPrecision)]
            lines.append("\t".join((glob, *formats)))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def uniform_policy(fmt: NumberFormat) -> PrecisionPolicy:
    """The policy that gives every layer's weights one format, named by the format's text.

    Activations take the format in which the products are computed (`codebook5`: int8). A float format is
    used for state and bias as well; otherwise state is fp16 and bias fp32, as in the shipped policies.
    """
    compute = NumberFormat(fmt.compute)
    state, bias = (compute, compute) if fmt.is_float else (_STATE, _BIAS)
    return PrecisionPolicy(str(fmt), (), LayerPrecision(fmt, compute, state, bias))


def load_policy(name_or_path: str | Path) -> PrecisionPolicy:
    """The policy of a catalogue name, of a path, of a number format (`int4/channel`, `codebook5`), or one of `NATIVE`.

    A catalogue name wins over the number format of the same text, and a number format over a path.
    Raises ConfigError for a mistake in a file, HwsimError for an unknown name, with the nearest ones.
    """
    text = str(name_or_path)
    if text in NATIVE:
        return NATIVE[text]
    shipped = catalogue.names(CATALOGUE)
    is_path = isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml"))
    if not is_path and text not in shipped:
        if text.split("/")[0] in BASES:
            return uniform_policy(NumberFormat.parse(text))
        if "/" not in text:
            raise HwsimError(f"unknown policy '{text}'{nearest(text, {*shipped, *BASES, *NATIVE})}")
    from hwsim.numerics.policy_file import read_policy

    return read_policy(catalogue.find(CATALOGUE, "policy", name_or_path))


def is_dense(fmt: NumberFormat) -> bool:
    """Whether values that are not weights can have the format: no codebook, no N:M."""
    return fmt.kind != "codebook" and fmt.sparsity is None


NATIVE = {
    name: PrecisionPolicy(name, (), LayerPrecision.same(NumberFormat(fmt)))
    for name, fmt in (("native", "fp32"), ("native-fp16", "fp16"))
}
"""Stand for the number formats that an extracted model has itself: as they are, or what is fp32 as fp16."""
