"""Number formats and precision policies: the bits of every value, known before anything is run."""

from hwsim.numerics.formats import FormatError, NumberFormat, Sparsity, StoredBits
from hwsim.numerics.policy import (
    LayerPrecision,
    PartialPrecision,
    PrecisionPolicy,
    load_policy,
    uniform_policy,
)

__all__ = [
    "FormatError",
    "LayerPrecision",
    "NumberFormat",
    "PartialPrecision",
    "PrecisionPolicy",
    "Sparsity",
    "StoredBits",
    "load_policy",
    "uniform_policy",
]
