"""Grids of activations: QuantizeLinear, DequantizeLinear, and the scales that QLinear operators carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwsim.extract.onnx.constants import QUANTIZE, code_type
from hwsim.extract.onnx.draft import Activation, Draft, Part
from hwsim.extract.onnx.graph import Node
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role
from hwsim.trace.builder import Operand

CODE_TYPES = {2: (8, False), 3: (8, True), 4: (16, False), 5: (16, True), 21: (4, False), 22: (4, True),
              25: (2, False), 26: (2, True)}  # fmt: skip
"""ONNX's numbers of integer types, as `output_dtype` has them."""


def read_grid(draft: Draft, node: Node, scale: int, zero: int) -> Quantizer:
    """The grid of an activation by the inputs `scale` and `zero` of a node: one scale, float32, ties to even."""
    step = draft.need_constant(node, scale, "scale").reals()
    offset = draft.constant(node, zero)
    if node.input(zero) and offset is None:
        raise node.refuse(f"must have a constant zero point, got '{node.input(zero)}'")
    kind = CODE_TYPES.get(int(node.attributes.get("output_dtype", 0)), (8, False))
    if offset is not None:
        found = code_type(offset.array)
        if found is None:
            raise node.refuse(f"must have integer codes, got {offset.array.dtype.name}")
        kind = found
    if step.size != 1 or (offset is not None and offset.array.size != 1):
        raise node.refuse(f"must have one scale for an activation, got {step.size}")
    if not (np.isfinite(step) & (step > 0)).all():
        raise node.refuse(f"must have a positive, finite scale, got {step.reshape(-1)[0]}")
    point = np.zeros((), np.int64) if offset is None else offset.array.astype(np.int64).reshape(())
    return Quantizer(step.astype(np.float32).reshape(()), kind[0], point, kind[1], precision="float32")


def same_grid(a: Quantizer, b: Quantizer) -> bool:
    """Whether codes of one are codes of the other; how reals are rounded may differ."""
    return a.code_range == b.code_range and bool(a.scale == b.scale) and bool(a.zero_point == b.zero_point)


def common_grid(draft: Draft, activation: Activation) -> Quantizer | None:
    """The one grid of all its tensors, None when they have none or several."""
    grids = [draft.quantizers.get(part.name) for part in activation.parts]
    first = grids[0]
    if first is None or any(grid is None or not same_grid(grid, first) for grid in grids):
        return None
    return first


def set_grid(draft: Draft, part: Part, grid: Quantizer) -> None:
    """Give a tensor its grid, and the table that it is read from too."""
    draft.quantizers[part.name] = grid
    table = draft.tables.get(part.name)
    if table is not None:
        draft.quantizers.setdefault(table, grid)


def read_codes(draft: Draft, node: Node, at: int, grid: Quantizer) -> Activation:
    """An input that holds codes, which the node takes to be on `grid`. Raises HwsimError when they are on another."""
    found = draft.activation(node, at)
    if not found.codes:
        raise node.refuse(f"must read codes, got the reals '{node.input(at)}'")
    for part in found.parts:
        own = draft.quantizers.get(part.name)
        if own is None:
            set_grid(draft, part, grid)
        elif not same_grid(own, grid):
            raise node.refuse(f"must read '{node.input(at)}' on the grid it is written on, {_text(own)}, "
                              f"got {_text(grid)}")  # fmt: skip
    return found


def quantize_linear(draft: Draft, node: Node) -> None:
    """The grid of the tensor that is quantized, or an operation when its reals are read elsewhere too."""
    grid, source = read_grid(draft, node, 1, 2), draft.activation(node, 0)
    name = node.inputs[0]
    if source.codes:
        raise node.refuse(f"must read reals, got the codes '{name}'")
    if all(_is_on(draft, part, grid) for part in source.parts):
        draft.values[node.outputs[0]] = replace(source, codes=True, open=False)
        return
    result = replace(source, codes=True, open=False)
    if source.open and len(source.parts) == 1 and _only_quantized(draft, name, grid):
        set_grid(draft, source.parts[0], grid)
    else:
        result = replace(result, parts=_copies(draft, node, source))
        for part in result.parts:
            set_grid(draft, part, grid)
    draft.computed(node.outputs[0], result)


def dequantize_linear(draft: Draft, node: Node) -> None:
    """The reals of codes: the same tensor."""
    grid = read_grid(draft, node, 1, 2)
    if len(node.inputs) < 3 or not node.inputs[2]:
        known = next((draft.quantizers.get(part.name) for part in draft.activation(node, 0).parts), None)
        if known is None:
            raise node.refuse("must have a zero point, which says the type of its codes")
        grid = replace(grid, bits=known.bits, signed=known.signed)
    draft.values[node.outputs[0]] = replace(read_codes(draft, node, 0, grid), codes=False, open=False)


def dynamic_quantize(draft: Draft, node: Node) -> None:
    """Refuse a grid that is known only when the network runs."""
    count = sum(other.op == node.op for other in draft.graph.nodes)
    raise node.refuse(
        f"must have a grid that does not depend on the input, got {count} of these in the file: quantize the model "
        "statically, with calibration data (onnxruntime's quantize_static)"
    )


def _is_on(draft: Draft, part: Part, grid: Quantizer) -> bool:
    own = draft.quantizers.get(part.name)
    return own is not None and same_grid(own, grid)


def _only_quantized(draft: Draft, value: str, grid: Quantizer) -> bool:
    """Whether all that reads a value is its quantization on one grid."""
    readers = draft.graph.consumers.get(value, [])
    same = all(node.op in QUANTIZE and same_grid(read_grid(draft, node, 1, 2), grid) for node in readers)
    return same and value not in draft.graph.outputs


def _copies(draft: Draft, node: Node, source: Activation) -> tuple[Part, ...]:
    copies = []
    for at, part in enumerate(source.parts):
        name = f"{node.layer}.out{at if len(source.parts) > 1 else ''}"
        copy = draft.tensor(name, Role.ACTIVATION, (source.rows, part.columns), node.layer)
        draft.builder.op(Kind.ELEMENTWISE, node.layer, [Operand(part.index, part.columns)],
                         [Operand(copy.index, part.columns)], m=source.rows, n=part.columns,
                         function=Function.NONE)  # fmt: skip
        copies.append(copy)
    return tuple(copies)


def _text(grid: Quantizer) -> str:
    kind = "int" if grid.signed else "uint"
    return f"{kind}{grid.bits} of scale {float(grid.scale):g} and zero point {int(grid.zero_point)}"
