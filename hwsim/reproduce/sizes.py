"""Sizes of networks in a precision: which bits a file holds, by rules that hold for every row of a paper."""

from __future__ import annotations

from collections.abc import Iterable

from hwsim.numerics.formats import NumberFormat
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.trace import Role, Trace
from hwsim.trace.table import Tensor

FLOAT_BITS = 32
MEGABYTE = 1e6


def parameters(trace: Trace) -> list[Tensor]:
    """Weights and biases of a trace, each once."""
    return [tensor for tensor in trace.tensors if tensor.role in (Role.WEIGHT, Role.BIAS)]


def float_bits(tensors: Iterable[Tensor]) -> int:
    """Bits of tensors in float32."""
    return FLOAT_BITS * sum(tensor.elements for tensor in tensors)


def file_bits(trace: Trace, policy: PrecisionPolicy) -> int:
    """Bits of a model file: integer weights as they are stored, with scales; everything else in float32.

    A policy may compute what stays float in a narrower format; files of the papers hold it in float32.
    Raises HwsimError when a glob of the policy matches no layer.
    """
    return sum(tensor_bits(tensor) for tensor in parameters(trace.with_precision(policy)))


def tensor_bits(tensor: Tensor) -> int:
    """Bits of one parameter of a model file: as its integer format stores it, or float32."""
    fmt = NumberFormat.parse(tensor.format)
    return FLOAT_BITS * tensor.elements if fmt.is_float else fmt.stored_bits(tensor.shape).total


def file_megabytes(trace: Trace, policy: PrecisionPolicy) -> float:
    """`file_bits` in units of 10^6 bytes."""
    return file_bits(trace, policy) / 8 / MEGABYTE


def float_remainder(trace: Trace, policy: PrecisionPolicy) -> int:
    """Parameters that `file_bits` counts in float32."""
    found = parameters(trace.with_precision(policy))
    return sum(tensor.elements for tensor in found if NumberFormat.parse(tensor.format).is_float)
