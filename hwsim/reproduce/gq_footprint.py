"""The published footprint of the bifocal recognizer in two parts: one that scales with the bits, one that does not.

    memory(b) = scaling b / 8 + fixed;  30.07 MB at 8 bits and 20.83 MB at 5 give scaling 24.64 MB, fixed 5.43 MB

The two are fitted; the rows of mixed bits are not. There b is the mean over the
weights of `rnnt_gq`: right encoder, decoder and joint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.numerics import load_policy
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.gq_conditions import BASELINE, CONFIGURATIONS, HEADLINE
from hwsim.reproduce.record import SIZE_TOLERANCE, Row
from hwsim.trace import Role, Trace
from hwsim.trace.table import Tensor

PAPER = "Zhen et al., SLT 2022, arXiv 2210.09188"
EIGHT_MB, FIVE_MB = 30.07, 20.83
MIXED = {"5 but first layers and joint 8": 0.83, "1/5/5/5": 0.68}
"""Published, over the memory at 8 bits, in two digits."""


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

    def notes(self) -> tuple[str, ...]:
        """What the two parts say about the model on the device."""
        first, left = (
            100 * (EIGHT_MB * MIXED[name] - FIVE_MB) / (self.scaling_mb * more / 8)
            for name, more in (("5 but first layers and joint 8", 3), ("1/5/5/5", -4))
        )
        return (
            f"Memory is {self.scaling_mb:.2f} MB that scales with the bits and {self.fixed_mb:.2f} MB that does not,"
            f" fitted to two figures. At 8 bits that is {self.scaling_mb:.1f} M weights, where the layers that the"
            f" paper's text names have {self.weights / 1e6:.1f} M: the model on the device is another, smaller one. Its"
            f" mixed rows ask for {first:.0f} % of the weights in first layers and joint and {left:.0f} %"
            " in the left encoder (to the rounding of two digits, ±2 %), so the left encoder is the small one. It is"
            " left out here, which makes the last row that of 5/5/5/5. The two rows that are fitted confirm nothing.",
        )


def _weights(trace: Trace) -> list[Tensor]:
    return [tensor for tensor in trace.tensors if tensor.role == Role.WEIGHT]


def _mean_bits(trace: Trace, policy: str) -> float:
    weights = _weights(trace.with_precision(load_policy(policy)))
    bits = sum(NumberFormat.parse(tensor.format).code_bits * tensor.elements for tensor in weights)
    return bits / sum(tensor.elements for tensor in weights)
