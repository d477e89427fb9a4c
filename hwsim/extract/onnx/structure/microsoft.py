"""Operators of onnxruntime: dynamic products and LSTMs, and weights of few bits that are packed in bytes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant, Grid
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.formats import weight_format
from hwsim.extract.onnx.structure.grids import float_format
from hwsim.extract.onnx.structure.integer import code_grid, gridded, weight_grid
from hwsim.extract.onnx.structure.products import added_bias, linear
from hwsim.extract.onnx.structure.recurrent import LSTM_CELL, layer

Array = npt.NDArray[Any]
DYNAMIC = "int8/zp"
INT8_ACCURACY = 4
"""The accuracy level of MatMulNBits at which activations become int8."""


def dynamic_product(draft: Draft, node: Node) -> None:
    """DynamicQuantizeMatMul: reals that are quantized when the network runs, by constant codes."""
    weight = weight_grid(draft, node, draft.need_constant(node, 1, "weight"), 2, 3, axis=1)
    _note_dynamic(draft, node)
    _linear(draft, node, DYNAMIC, weight, 4)


def product_to_float(draft: Draft, node: Node) -> None:
    """MatMulIntegerToFloat: codes on a grid that may be computed, by constant codes."""
    draft.quantized = True
    weight = weight_grid(draft, node, draft.need_constant(node, 1, "weight"), 3, 5, axis=1)
    draft.spend(node, 2, 4)
    _linear(draft, node, code_grid(draft, node, 0, -1, 4), weight, 6)


def dynamic_lstm(draft: Draft, node: Node) -> None:
    """DynamicQuantizeLSTM: W and R (directions, inputs, gates cells) in codes, of one scale or one for each column."""
    _note_dynamic(draft, node)
    parts = []
    for at, scale, zero in ((1, 8, 9), (2, 10, 11)):
        codes = draft.need_constant(node, at, "weight")
        step = draft.need_constant(node, scale, "weight scale").reals()
        offset = draft.constant(node, zero)
        draft.spend(node, scale, zero)
        parts.append(_by_direction(node, codes, step, None if offset is None else offset.read()))
    layer(draft, node, LSTM_CELL, *parts)
    draft.emitted[-1].input_format = DYNAMIC


def packed_product(draft: Draft, node: Node) -> None:
    """MatMulNBits: weights (N, blocks, bytes), one scale for each block of inputs."""
    depth, outputs = int(node.attributes["K"]), int(node.attributes["N"])
    if node.input(4):
        raise node.refuse(f"must have inputs in their order, got the indices '{node.input(4)}'")
    weight = _unpacked(draft, node, (outputs, depth), int(node.attributes.get("bits", 4)), 3)
    level = int(node.attributes.get("accuracy_level", 0))
    text = "int8" if level == INT8_ACCURACY else float_format(draft, node, 0)
    if level == INT8_ACCURACY:
        draft.note("MatMulNBits of accuracy level 4: activations are int8 in blocks, found when the network runs")
    _linear(draft, node, text, weight.transposed((1, 0)), 5)


def packed_gather(draft: Draft, node: Node) -> None:
    """GatherBlockQuantized: rows of a table of few bits."""
    table = draft.need_constant(node, 0, "table")
    axis = int(node.attributes.get("gather_axis", 0)) % len(table.shape)
    per_code = 8 // int(node.attributes.get("bits", 4)) if table.dtype == np.uint8 else 1
    if axis != 0 or int(node.attributes.get("quantize_axis", 1)) % len(table.shape) != len(table.shape) - 1:
        raise node.refuse("must gather along the first axis a table in blocks along the last")
    shape = (table.shape[0], prod(table.shape[1:]) * per_code)
    bits = int(node.attributes.get("bits", 4))
    block = int(node.attributes.get("block_size", 128))
    weight = _blocked(draft, node, table, shape, bits, block, 2, 3, signed=table.dtype.name.startswith("int"))
    index = draft.reference(node, 1).value
    name = draft.weight(node, weight, shape, channel=0, depth=1)
    draft.emit(NodeKind.LOOKUP, node, [index], node.outputs, {"table": name})


def quant_lstm_cell(draft: Draft, node: Node) -> None:
    """Brevitas' QuantLSTMCell: a layer whose gates i, f, c, o have weights of their own."""
    draft.quantized = True
    if node.attributes.get("cifg", 0):
        raise node.refuse("must have gates of their own for input and forget, got cifg=1")
    shape = draft.type(node, 0).shape
    steps, batch = (shape[1], shape[0]) if node.attributes.get("batch_first", 0) else shape[:2]
    cells = draft.type(node, 1).shape[-1]
    weights: dict[str, str | None] = {}
    for part, first, rows in (("wx", 3, shape[2]), ("wh", 7, cells), ("bias_x", 11, 0)):
        joined = _joined(draft, node, [draft.constant(node, first + at) for at in range(4)])
        if joined is not None:
            sizes = (rows, 4 * cells) if rows else (4 * cells,)
            weights[part] = draft.weight(node, joined, sizes, channel=0, depth=1)
    draft.spend(node, *range(15, len(node.inputs)))
    states = [draft.refs[node.inputs[at]].value for at in (1, 2) if node.inputs[at] in draft.refs]
    for at in (1, 2):
        draft.fold(draft.constant(node, at))
    more: dict[str, Any] = {"reverse": True} if node.attributes.get("reverse_input", 0) else {}
    draft.note(f"{node.name}: the grids of its gates and states are not recorded, only those of weights and input")
    draft.emit(
        NodeKind.LSTM, node, [draft.reference(node, 0).value, *states], node.outputs, weights,
        input_format=float_format(draft, node, 0), steps=steps, batch=batch, inputs=shape[2], cells=cells,
        directions=1, projection=0, gate_order="ifco", **more,
    )  # fmt: skip


def _linear(draft: Draft, node: Node, text: str, weight: Constant, bias_at: int) -> None:
    bias, out, held = draft.constant(node, bias_at), node.outputs[0], None
    if bias is not None:
        held = draft.weight(node, bias, (bias.elements,))
    else:
        out, held = added_bias(draft, node, out, weight.shape[-1])
    # A product of reals with a bias of its own: nothing is looked for behind it.
    linear(draft, node, draft.reference(node, 0).value, text, weight, out, bias=held)


def _note_dynamic(draft: Draft, node: Node) -> None:
    draft.quantized = True
    draft.note(f"{node.name.rpartition('/')[2]}: grids of activations are found when the network runs, "
               "which is not counted")  # fmt: skip


def _by_direction(node: Node, codes: Constant, scale: Array, zero: Array | None) -> Constant:
    """LSTM weights as ONNX's LSTM has them, (directions, gates cells, inputs), with their scales."""
    directions, _, columns = codes.shape
    turned = codes.transposed((0, 2, 1))
    if scale.size == 1 or scale.size == directions:
        found = gridded(node, turned, scale, zero, 0)
    elif scale.size == directions * columns:
        shape = (directions, columns)
        kind = gridded(node, turned, np.ones(()), None, 0).grid
        assert kind is not None
        grid = Grid(kind.bits, kind.signed, scale.reshape(shape),
                    None if zero is None else np.broadcast_to(zero.reshape(directions, -1), shape), 2, 1)  # fmt: skip
        found = replace(turned, grid=grid)
    else:
        raise node.refuse(f"must have one scale, or one for each of {columns} columns, got {scale.size}")
    return found


def _unpacked(draft: Draft, node: Node, shape: tuple[int, int], bits: int, zero: int) -> Constant:
    block = int(node.attributes["block_size"])
    packed = draft.need_constant(node, 1, "weight")
    if bits not in (2, 4, 8):
        raise node.refuse(f"must have weights of 2, 4 or 8 bits, got {bits}")
    return _blocked(draft, node, packed, shape, bits, block, 2, zero, signed=False)


def _blocked(draft: Draft, node: Node, packed: Constant, shape: tuple[int, int], bits: int, block: int, scale: int,
             zero: int, *, signed: bool) -> Constant:  # fmt: skip
    """Codes (rows, columns) out of bytes, in blocks of columns; without zero points the middle of the range is 0."""
    rows, columns = shape
    blocks = -(-columns // block)
    steps = draft.need_constant(node, scale, "scale").reals().reshape(rows, blocks)
    draft.spend(node, scale, zero)
    stored = draft.constant(node, zero)
    if node.input(zero) and stored is None:
        raise node.refuse(f"must have constant zero points, got '{node.input(zero)}'")
    offset: Array | None
    if stored is None:
        offset = None if signed else np.full((), 1 << (bits - 1), np.int64)
    elif stored.dtype == np.uint8 and bits < 8:
        offset = codes_of(stored.read().reshape(rows, -1), bits)[:, :blocks]
    else:
        offset = stored.reals().reshape(rows, blocks)
    read = packed.file
    is_packed = packed.dtype == np.uint8 and bits < 8

    def unpack() -> Array:
        bytes_ = np.asarray(read()).reshape(rows, -1)
        return codes_of(bytes_, bits)[:, :columns] if is_packed else bytes_[:, :columns]

    if len(packed.sources) == 1:
        draft.packed[next(iter(packed.sources))] = rows * columns
    grid = Grid(bits, signed, steps, offset, 1, 1, block)
    weight = replace(packed, shape=shape, file=unpack, moves=(), axes=(0, 1), grid=grid)
    weight_format(node, weight, 0, 1)
    return weight


def codes_of(packed: Array, bits: int) -> Array:
    """Codes (rows, columns) out of bytes, the first in the lowest bits."""
    per_byte = 8 // bits
    parts = [(packed >> (bits * at)) & ((1 << bits) - 1) for at in range(per_byte)]
    codes: Array = np.stack(parts, axis=-1).reshape(len(packed), -1)
    return codes


def _joined(draft: Draft, node: Node, parts: list[Constant | None]) -> Constant | None:
    """Constants of four gates as one, (4 cells, inputs)."""
    held = [part for part in parts if part is not None]
    if not held:
        return None
    if len(held) < len(parts) or len({part.shape for part in held}) > 1:
        raise node.refuse("must have constant weights of one shape for all four gates")
    first, grids = held[0], [part.grid for part in held]
    grid = first.grid
    if grid is not None:
        if any(each is None or (each.bits, each.scale.size) != (grid.bits, grid.scale.size) for each in grids):
            raise node.refuse("must have weights of one format for all four gates")
        known = [each for each in grids if each is not None]
        scales = np.concatenate([np.broadcast_to(each.scale.reshape(-1), (len(first.read()),) if each.scale.size == 1
                                                 else (each.scale.size,)) for each in known])  # fmt: skip
        one = all(each.scale.size == 1 and each.scale == grid.scale for each in known)
        grid = replace(grid, scale=grid.scale if one else scales, axis=None if one else 0, along=None if one else 0)
    sources = frozenset().union(*(part.sources for part in held))
    return Constant(f"{node.name}:{'+'.join(sorted(sources))}" if sources else first.name,
                    (4 * first.shape[0], *first.shape[1:]), first.dtype,
                    lambda: np.concatenate([part.read() for part in held]), sources,
                    axes=tuple(range(len(first.shape))), grid=grid)  # fmt: skip
