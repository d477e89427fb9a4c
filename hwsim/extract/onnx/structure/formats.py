"""Number formats of what a file stores."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant, Grid
from hwsim.numerics.formats import BASES, NumberFormat

_FORMATS = {
    "float16": "fp16", "bfloat16": "bf16", "bool": "int8", "int8": "int8", "uint8": "int8", "int16": "int16",
    "uint16": "int16", "int4": "int4", "uint4": "int4", "int2": "int2", "uint2": "int2",
}  # fmt: skip


def stored_format(dtype: np.dtype[Any]) -> str:
    """The format of plain values of a type: reals of 64 bits count as fp32, other integers as int32."""
    return _FORMATS.get(dtype.name, "fp32" if dtype.kind == "f" else "int32")


def integer_base(node: Node, bits: int) -> str:
    """The name of two's complement of so many bits. Raises HwsimError for widths that no format has."""
    base = f"int{bits}"
    if base not in BASES:
        widths = ", ".join(name.removeprefix("int") for name in BASES if name.startswith("int"))
        raise node.refuse(f"must have codes of {widths} bits, got {bits}")
    return base


def activation_format(node: Node, grid: Grid) -> str:
    """The format of an activation on a grid; unsigned codes from zero up need no zero point."""
    granularity = "group" if grid.group else "channel" if grid.scale.size > 1 else "tensor"
    zero = grid.zero is not None and bool(np.asarray(grid.zero).astype(np.int64).any()) and grid.shifted
    return str(NumberFormat(integer_base(node, grid.bits), granularity, grid.group or 0, zero))  # type: ignore[arg-type]


def weight_format(node: Node, constant: Constant, channel: int | None, depth: int | None) -> str:
    """The format in which a file stores a weight. Raises HwsimError for scales that no format has.

    `channel`, `depth`: axes of its outputs and inputs, None for vectors and tables.
    """
    grid = constant.grid
    if grid is None:
        name = constant.stored or constant.dtype.name
        return _FORMATS.get(name, "int32" if name.startswith(("int", "uint")) else "fp32")
    base = integer_base(node, grid.bits)
    zero = grid.shifted and grid.bits > 1
    if grid.scale.size == 1:
        return str(NumberFormat(base, zero_point=zero))
    if grid.group:
        return _grouped(node, constant, grid, base, zero, depth)
    if grid.along is not None and channel is not None and grid.along != channel and grid.along == depth:
        raise node.refuse(f"must have scales by output channel of '{constant.name}', got one for each of its inputs")
    return str(NumberFormat(base, "channel", zero_point=zero))


def _grouped(node: Node, constant: Constant, grid: Grid, base: str, zero: bool, depth: int | None) -> str:
    size = constant.shape[grid.along] if grid.along is not None else prod(constant.shape)
    group = grid.group or size
    if depth is not None and grid.along != depth:
        raise node.refuse(f"must have blocks of '{constant.name}' along its inputs, got them along axis {grid.along}")
    if group >= size:
        return str(NumberFormat(base, "channel", zero_point=zero))
    if size % group:
        raise node.refuse(f"must have blocks that fill the {size} inputs of '{constant.name}', got blocks of {group}")
    return str(NumberFormat(base, "group", group, zero))
