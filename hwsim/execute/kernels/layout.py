"""How weight codes lie in memory, so that a register tile loads them in order and unpacks them in place.

A (K, N) matrix becomes panels of `PANEL` = 64 columns. A panel is a run of slabs along K, and a slab is a run
of chunks: 16 columns × 4 consecutive K, one unsigned byte each, 64 bytes. Chunk q of a slab holds the K quad
q // 4 and the columns 16 * (q % 4) onwards. A code of b bits is cut into bit planes of 8, 4, 2 or 1 bits,
and a plane of p bits lays 8/p consecutive chunks over each other in 64 bytes: chunk q stands in vector
q // (8/p), shifted left by p * (q % (8/p)). A slab stores its planes one after the other.
A slab is 4 of K, or 8 with a 1-bit plane, so that it is always whole vectors. K and N are padded with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

PANEL = 64
CHUNK_COLUMNS, CHUNK_DEPTH, CHUNK_BYTES = 16, 4, 64
CHUNKS_PER_QUAD = PANEL // CHUNK_COLUMNS


@dataclass(frozen=True, slots=True)
class Plane:
    """Some bits of every code: `bits` of them, which stand at bit `place` of the stored byte's value."""

    bits: int
    place: int

    @property
    def per_vector(self) -> int:
        """Chunks laid over each other in one vector of 64 bytes."""
        return 8 // self.bits


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to store codes.

    `planes`: from which an unsigned byte is put together. `offset`: what was added to a code to make it
    unsigned, so value = byte - offset. `table_bits`: 0, or the bits of an index into a table of unsigned bytes.
    """

    planes: tuple[Plane, ...]
    offset: int
    table_bits: int = 0

    @property
    def slab_depth(self) -> int:
        """Consecutive K in one slab, 4 or 8."""
        return CHUNK_DEPTH * (2 if any(plane.bits == 1 for plane in self.planes) else 1)

    @property
    def slab_chunks(self) -> int:
        """Chunks in one slab, 4 or 8."""
        return self.slab_depth // CHUNK_DEPTH * CHUNKS_PER_QUAD

    @property
    def slab_bytes(self) -> int:
        """Stored bytes of one slab: PANEL * slab_depth * bits / 8."""
        return sum(self.plane_bytes(plane) for plane in self.planes)

    @property
    def unpacking(self) -> int:
        """What putting a byte together takes: 0 nothing, 1 a mask, 2 several planes or a table."""
        if self.table_bits or len(self.planes) > 1:
            return 2
        return int(self.planes[0].bits < 8)

    @property
    def stacked_bits(self) -> int:
        """The bits of a code where a stored byte is nothing but such codes of several chunks, and 0 elsewhere."""
        return self.planes[0].bits if self.unpacking == 1 else 0

    def plane_bytes(self, plane: Plane) -> int:
        """Stored bytes of one plane of a slab."""
        return self.slab_chunks // plane.per_vector * CHUNK_BYTES

    def depth(self, size: int) -> int:
        """K padded to whole slabs."""
        return -(-size // self.slab_depth) * self.slab_depth


def _planes(bits: int, place: int = 0) -> tuple[Plane, ...]:
    """The planes of a code: its bits cut into the fewest runs of 8, 4, 2, 1."""
    cut: list[Plane] = []
    for run in (8, 4, 2, 1):
        if bits & run:
            cut.append(Plane(run, place))
            place += run
    return tuple(cut)


CODEBOOK_OFFSET = 128

LAYOUTS: dict[str, Layout] = {
    # One bit b stands at place 1, so that the byte is 0 or 2 and minus the offset -1 or +1.
    "int1": Layout(_planes(1, place=1), offset=1),
    **{f"int{bits}": Layout(_planes(bits), offset=1 << (bits - 1)) for bits in (2, 3, 4, 5, 6, 8)},
    **{f"codebook{bits}": Layout(_planes(bits), CODEBOOK_OFFSET, table_bits=bits) for bits in range(1, 7)},
}


def padded_columns(columns: int) -> int:
    """N padded to whole panels."""
    return -(-columns // PANEL) * PANEL


def store(stored: Bytes, layout: Layout) -> Bytes:
    """The packed bytes of a matrix.

    `stored`: (K, N) uint8, K a multiple of `slab_depth`, N a multiple of `PANEL`;
    the bits of a value stand where the planes are. Returns (N/64, K/slab_depth, slab_bytes) uint8, aligned to 64 bytes.
    """
    depth, columns = stored.shape
    slabs, panels, quads = depth // layout.slab_depth, columns // PANEL, layout.slab_depth // CHUNK_DEPTH
    split = stored.reshape(slabs, quads, CHUNK_DEPTH, panels, CHUNKS_PER_QUAD, CHUNK_COLUMNS)
    chunks = split.transpose(3, 0, 1, 4, 5, 2).reshape(panels, slabs, layout.slab_chunks, CHUNK_BYTES)
    data = aligned((panels, slabs, layout.slab_bytes))
    start = 0
    for plane in layout.planes:
        bits = (chunks >> np.uint8(plane.place)) & np.uint8((1 << plane.bits) - 1)
        laid = bits.reshape(panels, slabs, -1, plane.per_vector, CHUNK_BYTES)
        end = start + layout.plane_bytes(plane)
        target = data[:, :, start:end].reshape(panels, slabs, -1, CHUNK_BYTES)
        target[...] = 0
        for position in range(plane.per_vector):
            target |= laid[:, :, :, position] << np.uint8(plane.bits * position)
        data[:, :, start:end] = target.reshape(panels, slabs, -1)
        start = end
    return data


def load(data: Bytes, layout: Layout) -> Bytes:
    """The inverse of `store`: (N/64, K/slab_depth, slab_bytes) uint8 → (K, N) uint8."""
    panels, slabs, _ = data.shape
    chunks = np.zeros((panels, slabs, layout.slab_chunks, CHUNK_BYTES), np.uint8)
    start = 0
    for plane in layout.planes:
        end = start + layout.plane_bytes(plane)
        laid = data[:, :, start:end].reshape(panels, slabs, -1, 1, CHUNK_BYTES)
        shifts = (plane.bits * np.arange(plane.per_vector, dtype=np.uint8)).reshape(-1, 1)
        bits = (laid >> shifts) & np.uint8((1 << plane.bits) - 1)
        chunks |= (bits << np.uint8(plane.place)).reshape(chunks.shape)
        start = end
    quads = layout.slab_depth // CHUNK_DEPTH
    split = chunks.reshape(panels, slabs, quads, CHUNKS_PER_QUAD, CHUNK_COLUMNS, CHUNK_DEPTH)
    return split.transpose(1, 2, 5, 0, 3, 4).reshape(slabs * layout.slab_depth, panels * PANEL)


def aligned(shape: tuple[int, ...], alignment: int = CHUNK_BYTES) -> Bytes:
    """An uninitialized uint8 array whose first byte stands on a multiple of `alignment`."""
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.empty(count + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count].reshape(shape)
