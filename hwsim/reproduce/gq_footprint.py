"""The published footprint of the bifocal recognizer in two parts: one that scales with the bits, one that does not.

    memory(b) = scaling b / 8 + fixed;  30.07 MB at 8 bits and 20.83 MB at 5 give scaling 24.64 MB, fixed 5.43 MB

The two are fitted; the rows of mixed bits are not. There b is the mean over the weights of `rnnt_bifocal_gq`: left and
right encoder, decoder and joint. `Contradiction` says what the published rows and the named layers leave of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.numerics import load_policy
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.gq_conditions import BASELINE, CONFIGURATIONS, HEADLINE, ONE_BIT
from hwsim.reproduce.record import SIZE_TOLERANCE, Row
from hwsim.trace import Role, Trace
from hwsim.trace.table import Tensor

PAPER = "Zhen et al., SLT 2022, arXiv 2210.09188"
EIGHT_MB, FIVE_MB = 30.07, 20.83
FIRST_LAYERS = "5 but first layers and joint 8"
MIXED = {FIRST_LAYERS: 0.83, ONE_BIT: 0.68}
"""Published, over the memory at 8 bits, in two digits."""
HALF_DIGIT = 0.005
"""What two digits leave open."""


@dataclass(frozen=True)
class Footprint:
    """The two parts, 10^6 bytes, and the mean bits of a weight in each configuration."""

    scaling_mb: float
    fixed_mb: float
    mean_bits: Mapping[str, float]
    weights: int

    @classmethod
    def of(cls, trace: Trace) -> Footprint:
        """Fit the parts to both published figures; count bits on the weights of a trace."""
        scaling_mb = (EIGHT_MB - FIVE_MB) / (1 - 5 / 8)
        bits = {name: _mean_bits(trace, policy) for name, policy in CONFIGURATIONS.items()}
        return cls(scaling_mb, EIGHT_MB - scaling_mb, bits, sum(t.elements for t in _weights(trace)))

    def memory_mb(self, bits: float) -> float:
        """Memory at a mean number of bits of a weight, 10^6 bytes."""
        return self.scaling_mb * bits / 8 + self.fixed_mb

    def rows(self) -> list[Row]:
        """The two that are fitted, and the two that follow."""
        fitted = f"{PAPER}, device results; the two parts are fitted to this row"
        rows = [
            Row(f"memory, {name}", published, self.memory_mb(bits), "MB", fitted, SIZE_TOLERANCE)
            for name, published, bits in ((BASELINE, EIGHT_MB, 8.0), (HEADLINE, FIVE_MB, 5.0))
        ]
        for name, share in MIXED.items():
            found = self.memory_mb(self.mean_bits[name]) / EIGHT_MB
            source = f"{PAPER}, device results, over 8/8/8/8; two digits"
            rows.append(Row(f"memory, {name}", share, found, "× 8 bits", source, SIZE_TOLERANCE))
        return rows


@dataclass(frozen=True)
class Contradiction:
    """What the published memory says of weights, beside the layers that the paper names; weights in millions.

    A weight takes a byte at 8 bits, so `stored` is a bound; one that goes from 8 bits to 5 saves 3/8 of a byte, and one
    that goes from 5 bits to 1 half a byte, whatever else is in the memory.
    """

    named: float
    """Weights of the layers that the paper names."""
    stored: float
    """All that 30.07 MB can hold at 8 bits."""
    scaling: float
    """Those that the step from 8 to 5 bits changed."""
    named_left: float
    left: tuple[float, float]
    """Those that the step from 5 bits to 1 in the left encoder changed: the least and the most, by the rounding."""
    named_first: float
    """Of first layers and joint."""
    first: tuple[float, float]
    """Those that stay at 8 bits in the second row."""

    @classmethod
    def of(cls, trace: Trace) -> Contradiction:
        """From the published rows, and the layers of a trace."""
        saved_mb = [EIGHT_MB - FIVE_MB, *(FIVE_MB - share * EIGHT_MB for share in MIXED.values())]
        open_mb = HALF_DIGIT * EIGHT_MB
        eights = _bits_of(trace, CONFIGURATIONS[FIRST_LAYERS])
        weights = {tensor.name: tensor.elements / 1e6 for tensor in _weights(trace)}
        return cls(
            named=sum(weights.values()),
            stored=EIGHT_MB,
            scaling=saved_mb[0] / (3 / 8),
            named_left=sum(count for name, count in weights.items() if name.startswith("encoder_left.")),
            left=((saved_mb[2] - open_mb) / (4 / 8), (saved_mb[2] + open_mb) / (4 / 8)),
            named_first=sum(count for name, count in weights.items() if eights[name] == 8),
            first=((-saved_mb[1] - open_mb) / (3 / 8), (-saved_mb[1] + open_mb) / (3 / 8)),
        )

    def notes(self) -> tuple[str, ...]:
        """What contradicts what."""
        low, high = (100 * count / self.scaling for count in self.left)
        few, many = (100 * count / self.scaling for count in self.first)
        scaling_mb = self.scaling
        return (
            f"Memory is {scaling_mb:.2f} MB that scales with the bits and {EIGHT_MB - scaling_mb:.2f} MB that does not,"
            " fitted to two figures, which therefore confirm nothing. The layers that the paper names have"
            f" {self.named:.1f} M weights, twice what {self.stored:.2f} MB hold at 8 bits, and the step to 5 bits"
            f" changed {self.scaling:.1f} M. So the model on the device is not the one of those layers.",
            f"0.68 against 0.69 says that {self.left[0]:.1f} to {self.left[1]:.1f} M weights of the left encoder went"
            f" from 5 bits to 1. That it is small is right as a share, {low:.0f} to {high:.0f} % of what scales, as"
            f" {100 * self.named_left / self.named:.0f} % of the named weights; by its 5 layers of 256 it would have"
            f" {self.named_left:.1f} M and the row would be {(FIVE_MB - self.named_left / 2) / EIGHT_MB:.2f}. The model"
            " on the device is smaller in all parts.",
            f"0.83 asks for {few:.0f} to {many:.0f} % of what scales in first layers and joint; the named ones are"
            f" {100 * self.named_first / self.named:.0f} % of the named weights, so that row misses.",
        )


def _weights(trace: Trace) -> list[Tensor]:
    return [tensor for tensor in trace.tensors if tensor.role == Role.WEIGHT]


def _bits_of(trace: Trace, policy: str) -> dict[str, int]:
    """Bits of a code of each weight tensor."""
    weights = _weights(trace.with_precision(load_policy(policy)))
    return {tensor.name: NumberFormat.parse(tensor.format).code_bits for tensor in weights}


def _mean_bits(trace: Trace, policy: str) -> float:
    bits, weights = _bits_of(trace, policy), _weights(trace)
    return sum(bits[tensor.name] * tensor.elements for tensor in weights) / sum(t.elements for t in weights)
