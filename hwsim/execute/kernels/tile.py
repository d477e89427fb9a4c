"""The register tile: a few rows of activations times one panel of 64 packed columns, over a run of K.

One Numba intrinsic, `tile`, written in LLVM for a machine and a layout. Its sums stay in registers for the
whole run; packed codes are unpacked where they are used, and never written to memory.

Codes of 4, 2 or 1 bits are hardly unpacked at all: where a byte is x + 16 y, a mask gives the sum of a·x, the byte
as it is that of a·(x + 16 y), and one subtraction and shift at the end that of a·y (`emit.Vectors.stack`). Such a sum
is below 2^31 as it stands, because a run of K is at most 4096 and 4096 * 128 * 255 is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hwsim.execute.kernels import emit, layout, target
from hwsim.execute.kernels.emit import I8, I32, Carried, Value, Vectors, number
from hwsim.execute.kernels.layout import CHUNK_COLUMNS, CHUNK_DEPTH, CHUNKS_PER_QUAD, LAYOUTS, Layout
from hwsim.execute.kernels.target import Isa

WORD_BYTES = 4
# Low tiles wait for weights, and the machine's own prefetching stops at each page: measured, 5 to 7 % faster.
PREFETCHING_ROWS, AHEAD_BYTES = 4, 1024
_ISAS: dict[str, Isa] = {}


@cache
def _revision() -> int:
    """A number of the source that writes tiles: Numba's cache on disk sees only the file of the jitted function."""
    return zlib.crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in (emit, layout, target)))


@lru_cache
def specification(isa: Isa, base: str) -> str:
    """The name under which `tile` finds its machine and layout; compiled code is cached by it."""
    _ISAS[isa.name] = isa
    own = zlib.crc32(Path(__file__).read_bytes())
    return f"{isa.name} {base} {_revision() ^ own:08x}"


@dataclass(frozen=True, slots=True)
class Operands:
    """The arguments of `tile` as LLVM values: pointers to the first byte of each, strides, counts."""

    activations: Value
    activation_stride: Value
    weights: Value
    slabs: Value
    offsets: Value
    table: Value
    sums: Value
    out: Value
    out_stride: Value
    fresh: Value


def _write_rows(vectors: Vectors, lay: Layout, rows: int, operands: Operands) -> None:
    """One panel for a fixed number of rows, in as many column steps as the registers ask for."""
    blocks = vectors.isa.row_blocks[rows - 1]
    if blocks == CHUNKS_PER_QUAD:
        _write_columns(vectors, lay, rows, number(0), operands)
        return

    def step(index: Value, carried: Carried) -> Carried:
        first = vectors.builder.mul(index, number(blocks))
        _write_columns(vectors, lay, rows, first, operands)
        return carried

    emit.loop(vectors.builder, number(CHUNKS_PER_QUAD // blocks), [], step)


def _write_columns(vectors: Vectors, lay: Layout, rows: int, first: Value, operands: Operands) -> None:
    """rows × some chunks of columns: sum over all slabs, then write."""
    isa, builder = vectors.isa, vectors.builder
    chains = isa.chains[rows - 1]
    width = isa.row_blocks[rows - 1] * emit.registers_per_chunk(isa)
    table = vectors.table(operands.table, lay.table_bits)
    starts = [_row(vectors, operands.activations, operands.activation_stride, row) for row in range(rows)]

    def slab(index: Value, sums: Carried) -> Carried:
        return _add_slab(vectors, lay, (starts, operands.weights, table, first), index, sums)

    def run(index: Value, sums: Carried) -> Carried:
        after: Carried = []
        for chain in range(chains):
            at = builder.add(builder.mul(index, number(chains)), number(chain))
            after += slab(at, sums[chain * rows * width : (chain + 1) * rows * width])
        return after

    whole = builder.udiv(operands.slabs, number(chains))
    sums = emit.loop(builder, whole, [vectors.zero()] * (chains * rows * width), run)
    folded = [emit.summed(builder, sums[index :: rows * width]) for index in range(rows * width)]
    if chains > 1:
        done = builder.mul(whole, number(chains))
        left = builder.sub(operands.slabs, done)
        folded = emit.loop(builder, left, folded, lambda index, carried: slab(builder.add(done, index), carried))
    _write_sums(vectors, _separated(vectors, lay, folded, width), width, first, operands)


def _row(vectors: Vectors, base: Value, stride: Value, row: int) -> Value:
    return vectors.at(base, vectors.builder.mul(stride, number(row)))


def _add_slab(
    vectors: Vectors, lay: Layout, inputs: tuple[list[Value], Value, Carried, Value], index: Value, sums: Carried
) -> Carried:
    """The products of one slab added to the sums, which stand row by row."""
    starts, weights, table, first = inputs
    builder, after = vectors.builder, list(sums)
    quad_bytes = CHUNK_DEPTH * (2 if vectors.isa.paired else 1)
    width = len(sums) // len(starts)
    slab = vectors.at(weights, builder.mul(index, number(lay.slab_bytes)))
    if len(starts) <= PREFETCHING_ROWS and width == CHUNKS_PER_QUAD * emit.registers_per_chunk(vectors.isa):
        vectors.prefetch(vectors.at(slab, AHEAD_BYTES), lay.slab_bytes)
    for quad in range(lay.slab_depth // CHUNK_DEPTH):
        at = builder.add(
            builder.mul(index, number(lay.slab_depth // CHUNK_DEPTH * quad_bytes)), number(quad * quad_bytes)
        )
        activations = [vectors.activation(vectors.at(start, at)) for start in starts]
        for register in range(width):
            operand = vectors.weights(_byte(vectors, lay, (slab, table, first), quad, (register, width)))
            for row, activation in enumerate(activations):
                place = row * width + register
                after[place] = vectors.dot(after[place], operand, activation)
    return after


def _above(vectors: Vectors, lay: Layout, width: int, register: int) -> int:
    """How many codes of the same tile stand below the register's in the bytes of `Vectors.stack`."""
    per_chunk = emit.registers_per_chunk(vectors.isa)
    return register // per_chunk % min(lay.planes[0].per_vector, width // per_chunk)


def _byte(
    vectors: Vectors, lay: Layout, inputs: tuple[Value, Carried, Value], quad: int, place: tuple[int, int]
) -> Value:
    """The weight bytes of a register, (which, of how many): exact ones, or stacked on others of the tile."""
    slab, table, first = inputs
    register, width = place
    if not lay.stacked_bits:
        chunk, half = emit.chunk_of(first, quad, register, vectors)
        return vectors.look_up(vectors.unpack(slab, lay, chunk, half), table, lay.table_bits)
    above = _above(vectors, lay, width, register)
    lowest, half = emit.chunk_of(first, quad, register - above * emit.registers_per_chunk(vectors.isa), vectors)
    return vectors.stack(slab, lay, lowest, half, above)


def _separated(vectors: Vectors, lay: Layout, sums: Carried, width: int) -> Carried:
    """The sums of every chunk for itself."""
    if not lay.stacked_bits:
        return sums
    apart: Carried = []
    for place, total in enumerate(sums):
        above = _above(vectors, lay, width, place % width)
        below = sums[place - emit.registers_per_chunk(vectors.isa)] if above else None
        apart.append(vectors.unstacked(total, below, lay, above))
    return apart


def _write_sums(vectors: Vectors, sums: Carried, width: int, first: Value, operands: Operands) -> None:
    """out = sums - rowsum * offset when fresh, out += the same when not."""
    builder = vectors.builder
    column = builder.mul(first, number(CHUNK_COLUMNS * WORD_BYTES))
    offsets, out = vectors.at(operands.offsets, column), vectors.at(operands.out, column)
    places, values = [], []
    for place, total in enumerate(sums):
        row, at = place // width, place % width * vectors.isa.vector_bytes
        row_sum = vectors.splat(vectors.load(vectors.at(operands.sums, row * WORD_BYTES), I32))
        values.append(builder.sub(total, builder.mul(row_sum, vectors.load(vectors.at(offsets, at)))))
        places.append(vectors.at(_row(vectors, out, operands.out_stride, row), at))
    with builder.if_else(operands.fresh) as (then, otherwise):
        with then:
            for value, to in zip(values, places, strict=True):
                vectors.store(value, to)
        with otherwise:
            for value, to in zip(values, places, strict=True):
                vectors.store(builder.add(value, vectors.load(to)), to)


def _write(builder: Value, isa: Isa, lay: Layout, rows: Value, operands: Operands) -> None:
    """A switch over the number of rows."""
    done = builder.append_basic_block("tile_done")
    switch = builder.switch(rows, done)
    for count in range(1, isa.max_rows(lay.unpacking) + 1):
        block = builder.append_basic_block(f"rows_{count}")
        switch.add_case(number(count), block)
        builder.position_at_end(block)
        if isa.chains[count - 1] > 1:
            _call_rows(builder, isa, lay, count, operands)
        else:
            _write_rows(Vectors(builder, isa), lay, count, operands)
        builder.branch(done)
    builder.position_at_end(done)


def _call_rows(builder: Value, isa: Isa, lay: Layout, rows: int, operands: Operands) -> None:
    """`_write_rows` in a function of its own: several chains have many addresses, which find no registers inline."""
    arguments = [getattr(operands, field.name) for field in fields(Operands)]
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    function = ir.Function(builder.module, kind, builder.module.get_unique_name(f"tile_{rows}"))
    function.linkage = "internal"
    function.attributes.add("noinline")
    inside = ir.IRBuilder(function.append_basic_block())
    _write_rows(Vectors(inside, isa), lay, rows, Operands(*function.args))
    inside.ret_void()
    builder.call(function, arguments)


def _tile(
    typingctx: Any, spec: Any, rows: Any, slabs: Any, activations: Any, activations_at: Any, activation_stride: Any,
    weights: Any, weights_at: Any, offsets: Any, offsets_at: Any, table: Any, sums: Any, sums_at: Any,
    out: Any, out_at: Any, out_stride: Any, fresh: Any,
) -> Any:  # fmt: skip
    """out (rows, 64) int32 = or += activations (rows, depth) × one panel, over `slabs` slabs.

    `spec` is a literal from `specification`. Arrays are C-contiguous, and every `_at` and `_stride` counts bytes
    from the array's first; rows is 1 to the machine's `max_rows` for the layout. Nothing is checked.
    """
    if not isinstance(spec, types.StringLiteral):
        return None
    isa_name, base, _ = spec.literal_value.split()
    isa, lay, whole = _ISAS[isa_name], LAYOUTS[base], types.int64
    names: tuple[str, ...] = (
        "spec", "rows", "slabs", "activations", "activations_at", "activation_stride", "weights", "weights_at",
        "offsets", "offsets_at", "table", "sums", "sums_at", "out", "out_at", "out_stride", "fresh",
    )  # fmt: skip

    def codegen(context: Any, builder: Value, signature: Any, args: Any) -> Value:
        given, kinds = dict(zip(names, args, strict=True)), dict(zip(names, signature.args, strict=True))

        def first_byte(name: str) -> Value:
            start = _first_byte(context, builder, kinds[name], given[name])
            return builder.gep(start, [given[f"{name}_at"]]) if f"{name}_at" in given else start

        operands = Operands(
            **{name: first_byte(name) for name in ("activations", "weights", "offsets", "table", "sums", "out")},
            **{name: given[name] for name in ("activation_stride", "slabs", "out_stride")},
            fresh=builder.icmp_signed("!=", given["fresh"], number(0)),
        )
        _write(builder, isa, lay, given["rows"], operands)
        return context.get_dummy_value()

    return (
        types.void(
            spec, whole, whole, activations, whole, whole, weights, whole, offsets, whole,
            table, sums, whole, out, whole, whole, whole,
        ),
        codegen,
    )  # fmt: skip


def _row_sum(typingctx: Any, spec: Any, operand: Any, at: Any, length: Any) -> Any:
    """The sum of a run of one row of the tile's operand, int32: `length` bytes, a multiple of 4, from byte `at`."""
    if not isinstance(spec, types.StringLiteral):
        return None
    isa = _ISAS[spec.literal_value.split()[0]]

    def codegen(context: Any, builder: Value, signature: Any, args: Any) -> Value:
        vectors = Vectors(builder, isa)
        start = vectors.at(_first_byte(context, builder, signature.args[1], args[1]), args[2])
        whole = builder.udiv(args[3], number(isa.vector_bytes))
        done = builder.mul(whole, number(isa.vector_bytes))
        left = builder.udiv(builder.sub(args[3], done), number(WORD_BYTES))

        def vector(index: Value, carried: Carried) -> Carried:
            words = vectors.load(vectors.at(start, builder.mul(index, number(isa.vector_bytes))))
            return [builder.add(carried[0], vectors.sum(words))]

        def word(index: Value, carried: Carried) -> Carried:
            value = vectors.load(vectors.at(start, builder.add(done, builder.mul(index, number(WORD_BYTES)))), I32)
            return [builder.add(carried[0], vectors.sum(vectors.first(value)))]

        sums = emit.loop(builder, whole, [vectors.zero()], vector)
        return vectors.total(emit.loop(builder, left, sums, word)[0])

    return types.int32(spec, operand, types.int64, types.int64), codegen


def _first_byte(context: Any, builder: Value, kind: Any, array: Value) -> Value:
    """The pointer to an array's data."""
    return builder.bitcast(context.make_array(kind)(context, builder, array).data, I8.as_pointer())


# What compiled code calls: without the typing context, which type checkers would miss.
tile: Any = intrinsic(prefer_literal=True)(_tile)
row_sum: Any = intrinsic(prefer_literal=True)(_row_sum)
