"""QONNX quantizers: the grid that their inputs name, of an activation or of a constant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant, Grid

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
QUANTIZERS = tuple(f"{domain}.{op}" for domain in DOMAINS for op in ("Quant", "IntQuant", "BipolarQuant"))


def quant_grid(node: Node, inputs: Sequence[Constant | None]) -> Grid:
    """The grid of Quant or BipolarQuant. Raises HwsimError for scales and widths that are computed or not whole."""
    scale, zero, bits = (inputs[at].reals() if at < len(inputs) and inputs[at] is not None else None  # type: ignore[union-attr]
                         for at in (1, 2, 3))  # fmt: skip
    if scale is None:
        raise node.refuse(f"must have a constant scale, got '{node.input(1) or 'none'}'")
    if not np.isfinite(scale).all():
        raise node.refuse("must have finite scales")
    if node.op.endswith("BipolarQuant"):
        return Grid(1, True, scale)
    if bits is None or zero is None:
        raise node.refuse("must have a constant zero point and width")
    width = np.asarray(bits).reshape(-1)
    if width.size != 1 or width[0] != int(width[0]):
        raise node.refuse(f"must have one whole width, got {', '.join(f'{each:g}' for each in width[:4])}")
    return Grid(int(width[0]), bool(node.attributes.get("signed", 1)), scale, zero if zero.any() else None)


def scale_axis(node: Node, shape: Sequence[int], scale: tuple[int, ...]) -> int | None:
    """Along which axis of a constant the scales lie, None for one scale. Raises HwsimError for several axes."""
    sizes = (1,) * (len(shape) - len(scale)) + scale
    axes = [at for at, size in enumerate(sizes) if size > 1]
    if not axes:
        return None
    if len(axes) != 1 or len(sizes) != len(shape) or sizes[axes[0]] != shape[axes[0]]:
        raise node.refuse(f"must have one scale or one for each index of an axis of {tuple(shape)}, got {scale}")
    return axes[0]
