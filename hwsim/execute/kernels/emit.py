"""The vocabulary of a register tile in LLVM: vectors of bytes seen as int32, loops that carry registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from hwsim.execute.kernels.layout import CHUNK_BYTES, CHUNKS_PER_QUAD, Layout
from hwsim.execute.kernels.target import Isa

Value = Any  # llvmlite has no types of its own for mypy
Carried = list[Value]

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
NIBBLE_ENTRIES = 16
INTRINSICS = {
    ("vnni", 64): "llvm.x86.avx512.vpdpbusd.512",
    ("vnni", 32): "llvm.x86.avx512.vpdpbusd.256",
    ("madd", 64): "llvm.x86.avx512.pmaddw.d.512",
    ("madd", 32): "llvm.x86.avx2.pmadd.wd",
    ("permute", 64): "llvm.x86.avx512.permvar.qi.512",
    ("shuffle", 64): "llvm.x86.avx512.pshuf.b.512",
    ("shuffle", 32): "llvm.x86.avx2.pshuf.b",
}


def number(value: int | Value) -> Value:
    """A Python integer as an LLVM i64; an LLVM value as it is."""
    return ir.Constant(I64, value) if isinstance(value, int) else value


def loop(builder: Value, count: Value, carried: Carried, body: Callable[[Value, Carried], Carried]) -> Carried:
    """`for i in range(count): carried = body(i, carried)`, with everything carried in registers."""
    entry = builder.block
    head, inside, done = (builder.append_basic_block(name) for name in ("head", "inside", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    phis = [builder.phi(value.type) for value in carried]
    builder.cbranch(builder.icmp_signed("<", index, count), inside, done)
    builder.position_at_end(inside)
    after = body(index, list(phis))
    following = builder.add(index, number(1))
    for phi, before, later in zip([index, *phis], [number(0), *carried], [following, *after], strict=True):
        phi.add_incoming(before, entry)
        phi.add_incoming(later, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return phis


class Vectors:
    """Vector instructions of one machine, written at the builder's place."""

    def __init__(self, builder: Value, isa: Isa) -> None:
        self.builder, self.isa = builder, isa
        self.words = ir.VectorType(I32, isa.lanes)
        self.pairs = ir.VectorType(I16, 2 * isa.lanes)
        self.bytes = ir.VectorType(I8, isa.vector_bytes)

    def at(self, pointer: Value, offset_bytes: int | Value) -> Value:
        """The pointer moved on by some bytes."""
        return self.builder.gep(pointer, [number(offset_bytes)])

    def load(self, pointer: Value, kind: Value | None = None) -> Value:
        """A vector of int32, or a value of `kind`, at any alignment."""
        return self.builder.load(self.builder.bitcast(pointer, (kind or self.words).as_pointer()), align=1)

    def store(self, vector: Value, pointer: Value) -> None:
        """A vector of int32 at any alignment."""
        self.builder.store(vector, self.builder.bitcast(pointer, self.words.as_pointer()), align=1)

    def splat(self, scalar: Value, kind: Value | None = None) -> Value:
        """The scalar in every lane."""
        kind = kind or self.words
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)

    def first(self, scalar: Value) -> Value:
        """An i32 in the first lane, zeros in the others."""
        return self.builder.insert_element(self.zero(), scalar, ir.Constant(I32, 0))

    def same(self, value: int, kind: Value | None = None) -> Value:
        """A constant in every lane."""
        kind = kind or self.words
        return ir.Constant(kind, [value] * kind.count)

    def zero(self) -> Value:
        """Sums before the first product."""
        return self.same(0)

    def call(self, name: str, result: Value, *operands: Value) -> Value:
        """An instruction of the machine by LLVM's name."""
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        insert: Any = cgutils.get_or_insert_function
        function = insert(self.builder.module, signature, name)
        return self.builder.call(function, operands)

    def activation(self, pointer: Value) -> Carried:
        """Four activations of one row in every lane: int8 × 4, or int16 pairs of the even and of the odd ones."""
        starts = (0, 4) if self.isa.paired else (0,)
        return [self.splat(self.load(self.at(pointer, start), I32)) for start in starts]

    def weights(self, byte: Value) -> Carried:
        """The operands of `dot` from unsigned bytes: as they are, or even and odd ones as int16 pairs."""
        if not self.isa.paired:
            return [byte]
        odd = self.builder.lshr(self.builder.bitcast(byte, self.pairs), self.same(8, self.pairs))
        return [self.builder.and_(byte, self.same(0x00FF00FF)), self.builder.bitcast(odd, self.words)]

    def dot(self, total: Value, weights: Carried, activation: Carried) -> Value:
        """total + the four products of each lane, modulo 2^32."""
        name = INTRINSICS.get((self.isa.dot, self.isa.vector_bytes), "")
        if self.isa.dot == "vnni":
            return self.call(name, self.words, total, weights[0], activation[0])
        for weight, other in zip(weights, activation, strict=True):
            total = self.builder.add(total, self._pair_products(weight, other, name))
        return total

    def _pair_products(self, weight: Value, activation: Value, name: str) -> Value:
        """The sum of both int16 products in each lane; weights are not negative."""
        builder = self.builder
        if self.isa.dot == "madd":
            halves = (builder.bitcast(operand, self.pairs) for operand in (weight, activation))
            return self.call(name, self.words, *halves)
        sixteen = self.same(16)
        low = builder.mul(
            builder.and_(weight, self.same(0xFFFF)), builder.ashr(builder.shl(activation, sixteen), sixteen)
        )
        return builder.add(low, builder.mul(builder.lshr(weight, sixteen), builder.ashr(activation, sixteen)))

    def sum(self, words: Value) -> Value:
        """The sum of the activations in a vector of the tile's operand, in each lane for itself."""
        if self.isa.paired:
            name = INTRINSICS.get((self.isa.dot, self.isa.vector_bytes), "")
            return self._pair_products(self.same(0x00010001), words, name)
        return self.dot(self.zero(), [self.same(0x01010101)], [words])

    def total(self, words: Value) -> Value:
        """The sum of all lanes, an i32."""
        return self.call(f"llvm.vector.reduce.add.v{self.isa.lanes}i32", I32, words)

    def prefetch(self, start: Value, length: int) -> None:
        """Ask for the lines of memory that will be read soon; outside of any array it does nothing."""
        flags = [ir.Constant(I32, flag) for flag in (0, 3, 1)]  # to read, keep close, data
        for line in range(0, length, CHUNK_BYTES):
            self.call("llvm.prefetch.p0", ir.VoidType(), self.at(start, line), *flags)

    def unpack(self, slab: Value, layout: Layout, chunk: Value, half: int) -> Value:
        """The stored bytes of a chunk; `half` counts the registers in it. See `layout` for where they stand."""
        builder, byte, start = self.builder, None, 0
        for plane in layout.planes:
            vector = builder.mul(builder.udiv(chunk, number(plane.per_vector)), number(CHUNK_BYTES))
            laid = self.load(self.at(slab, builder.add(vector, number(start + half * self.isa.vector_bytes))))
            if plane.bits < 8:
                shift = builder.mul(builder.urem(chunk, number(plane.per_vector)), number(plane.bits))
                laid = builder.lshr(laid, self.splat(builder.trunc(shift, I32)))
                laid = builder.and_(laid, self.same(((1 << plane.bits) - 1) * 0x01010101))
                laid = builder.shl(laid, self.same(plane.place))
            byte = laid if byte is None else builder.or_(byte, laid)
            start += layout.plane_bytes(plane)
        return byte

    def stack(self, slab: Value, layout: Layout, chunk: Value, half: int, above: int) -> Value:
        """Bytes whose lowest bits are the code of a chunk and, above it, those of as many chunks after it.

        For layouts with `stacked_bits`. `unstacked` tells the sums of products with such bytes apart.
        """
        plane, depth = layout.planes[0], above + 1
        vector = self.builder.mul(self.builder.udiv(chunk, number(plane.per_vector)), number(CHUNK_BYTES))
        laid = self.load(self.at(slab, self.builder.add(vector, number(half * self.isa.vector_bytes))))
        if plane.bits * depth == 8:
            return laid
        shift = self.builder.mul(self.builder.urem(chunk, number(plane.per_vector)), number(plane.bits))
        laid = self.builder.lshr(laid, self.splat(self.builder.trunc(shift, I32)))
        return self.builder.and_(laid, self.same(((1 << plane.bits * depth) - 1) * 0x01010101))

    def unstacked(self, total: Value, below: Value | None, layout: Layout, above: int) -> Value:
        """The sum for the uppermost code of `stack` alone, from its sum and that of the stack without it."""
        plane = layout.planes[0]
        if below is not None:
            total = self.builder.ashr(self.builder.sub(total, below), self.same(plane.bits * above))
        return self.builder.shl(total, self.same(plane.place))

    def table(self, pointer: Value, bits: int) -> Carried:
        """The registers that hold a table of 2^bits unsigned bytes; its memory is padded to 64."""
        if not bits:
            return []
        if self.isa.lookup == "permute":
            return [self.load(pointer, self.bytes)]
        if self.isa.lookup == "select":
            return [self.splat(self.load(self.at(pointer, entry), I8), self.bytes) for entry in range(1 << bits)]
        nibble = ir.VectorType(I8, NIBBLE_ENTRIES)
        repeated = ir.Constant(ir.VectorType(I32, self.bytes.count), [*range(16)] * (self.bytes.count // 16))
        parts = [self.load(self.at(pointer, at), nibble) for at in range(0, 1 << bits, NIBBLE_ENTRIES)]
        return [self.builder.shuffle_vector(part, ir.Constant(nibble, ir.Undefined), repeated) for part in parts]

    def look_up(self, index: Value, table: Carried, bits: int) -> Value:
        """The table's bytes at the index of each byte, which is below 2^bits."""
        if not bits:
            return index
        index = self.builder.bitcast(index, self.bytes)
        found, from_bit = list(table), 0
        if self.isa.lookup != "select":
            name = INTRINSICS[self.isa.lookup, self.isa.vector_bytes]
            found, from_bit = [self.call(name, self.bytes, part, index) for part in table], 4
        for bit in range(from_bit, bits):
            if len(found) > 1:
                asked = self.builder.and_(index, self.same(1 << bit, self.bytes))
                high = self.builder.icmp_signed("!=", asked, self.same(0, self.bytes))
                found = [self.builder.select(high, *reversed(two)) for two in zip(found[::2], found[1::2], strict=True)]
        return self.builder.bitcast(found[0], self.words)


def registers_per_chunk(isa: Isa) -> int:
    """1 or 2."""
    return CHUNK_BYTES // isa.vector_bytes


def chunk_of(first: Value, quad: int, register: int, vectors: Vectors) -> tuple[Value, int]:
    """The chunk within a slab that a tile's register belongs to, and which part of it."""
    per_chunk = registers_per_chunk(vectors.isa)
    within = quad * CHUNKS_PER_QUAD + register // per_chunk
    return vectors.builder.add(first, number(within)), register % per_chunk


def summed(builder: Value, values: Sequence[Value]) -> Value:
    """The sum of some vectors."""
    total = values[0]
    for value in values[1:]:
        total = builder.add(total, value)
    return total
