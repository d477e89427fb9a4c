"""How weights are stored, and what of it the arrays of a machine compute: codebooks and N:M sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.arch import Architecture
from hwsim.cost.matmul import WeightStorage
from hwsim.numerics.formats import NumberFormat


def weight_storage(arch: Architecture, formats: Sequence[NumberFormat], compute: str) -> WeightStorage:
    """The storage of second operands of these formats, whose products are computed in the native format `compute`.

    A dense element takes its code bits; an N:M sparse one N / M of them, with 1 bit of mask or N / M positions. An
    array with `structured_sparsity` does N' MACs for each M, N' being its own N, when the weights have the same M and
    N <= N'; otherwise it computes the zeros. Codebooks and sparse weights leave the decoder, where there is one.
    """
    codes = NumberFormat(compute).code_bits if compute in _PLAIN else 8
    rows = [(_bits(fmt), *_computed(arch, fmt), codes if _is_expanded(arch, fmt) else 0) for fmt in formats]
    bits, keep, group, expanded = zip(*rows, strict=True)
    return WeightStorage(
        np.array(bits, np.float64), np.array(keep, np.int64), np.array(group, np.int64), np.array(expanded, np.int64)
    )


_PLAIN = ("int1", "int2", "int3", "int4", "int8", "int16", "fp16", "bf16", "fp32")
"""Compute formats that are number formats too; a machine may have others (hfp8), of 8 bits."""


def _bits(fmt: NumberFormat) -> float:
    sparsity = fmt.sparsity
    if sparsity is None:
        return fmt.code_bits
    share = sparsity.keep / sparsity.group
    return share * fmt.code_bits + (1 if sparsity.storage == "mask" else share * sparsity.index_bits)


def _computed(arch: Architecture, fmt: NumberFormat) -> tuple[int, int]:
    machine, sparsity = arch.array.structured_sparsity, fmt.sparsity
    if machine is None or sparsity is None:
        return 1, 1
    fits = sparsity.group == machine.group.value and sparsity.keep <= machine.keep.value
    return (machine.keep.value, machine.group.value) if fits else (1, 1)


def _is_expanded(arch: Architecture, fmt: NumberFormat) -> bool:
    return arch.array.weight_decoder is not None and (fmt.kind == "codebook" or fmt.sparsity is not None)
