"""Which instructions a tile may use: what the code is compiled for, not what this machine happens to be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from hwsim.errors import HwsimError, nearest

Path = Literal["vnni", "avx2", "portable"]
Dot = Literal["vnni", "madd", "generic"]
Lookup = Literal["permute", "shuffle", "select"]

# One row more, and sums may spill to memory: measured, 300 operations/ns instead of 900.
MAX_ROWS = (6, 5, 4)
PATHS: tuple[str, ...] = get_args(Path)


@dataclass(frozen=True, slots=True)
class Isa:
    """What a register tile is made of.

    `vector_bytes`: width of a register. `dot`: how four products of u8 × s8 are added to an int32:
    `vnni` in one instruction, `madd` by widening to int16 pairs, `generic` in plain int32 arithmetic that any
    target has. `lookup`: how a codebook index becomes a centroid: a permute of 64 bytes, shuffles of 16, or selects.
    `row_blocks`: for 1, 2, ... rows of activations, how many chunks of 16 columns a tile covers at once.
    `chains`: for as many rows, how many independent sums hide the latency of the dot.
    """

    vector_bytes: int
    dot: Dot
    lookup: Lookup
    row_blocks: tuple[int, ...]
    chains: tuple[int, ...]

    @property
    def name(self) -> str:
        """Unique among the machines; part of the key under which compiled code is cached."""
        return f"{self.dot}{8 * self.vector_bytes}{self.lookup}"

    @property
    def lanes(self) -> int:
        """int32 in one register."""
        return self.vector_bytes // 4

    @property
    def paired(self) -> bool:
        """Whether activations are widened to pairs of int16 beforehand."""
        return self.dot != "vnni"

    def max_rows(self, unpacking: int) -> int:
        """Rows of the tallest tile, fewer where unpacking (see `Layout.unpacking`) takes registers."""
        return min(len(self.row_blocks), MAX_ROWS[unpacking])


_SHAPES: dict[tuple[int, bool], tuple[tuple[int, ...], tuple[int, ...]]] = {
    # 32 registers of 64 bytes: 6 x 64 sums, 4 of weights, 1 of activations.
    (64, False): ((4, 4, 4, 4, 4, 4), (4, 2, 1, 1, 1, 1)),
    # Widened, weights and activations take two registers where they took one.
    (64, True): ((4, 4, 4, 4), (2, 1, 1, 1)),
    # 16 registers of 32 bytes.
    (32, False): ((4, 2, 1, 1), (1, 1, 1, 1)),
    (32, True): ((4, 2, 1, 1), (1, 1, 1, 1)),
}


def _isa(vector_bytes: int, dot: Dot, lookup: Lookup) -> Isa:
    return Isa(vector_bytes, dot, lookup, *_SHAPES[vector_bytes, dot != "vnni"])


def features() -> frozenset[str]:
    """Instruction sets of the target that Numba compiles for, by LLVM's names.

    They follow NUMBA_CPU_NAME and NUMBA_CPU_FEATURES. An empty set is a target of which nothing is known.
    """
    from numba.core.registry import cpu_target

    listed = cpu_target.target_context.codegen().magic_tuple()[2]
    return frozenset(name[1:] for name in str(listed).split(",") if name.startswith("+"))


def choose(available: frozenset[str], path: str | None = None) -> Isa:
    """The machine of a path, or of the fastest path that the features allow.

    `vnni`: dot-4 instructions, in 512 bits or 256. `avx2`: widening multiply-add in 256 bits.
    `portable`: no dot-4; widening multiply-add as wide as the target has it, and plain arithmetic elsewhere.
    Raises HwsimError for an unknown path, and for one whose instructions the target lacks.
    """
    wide = {"avx512f", "avx512bw", "avx512vl"} <= available
    narrow_lookup: Lookup = "shuffle" if "avx2" in available else "select"
    wide_lookup: Lookup = "permute" if "avx512vbmi" in available else "shuffle"
    wide_vnni = wide and "avx512vnni" in available
    match path:
        case None | "vnni" if wide_vnni:
            return _isa(64, "vnni", wide_lookup)
        case None | "vnni" if {"avx2", "avxvnni"} <= available:
            return _isa(32, "vnni", "shuffle")
        case None | "portable":
            if wide:
                return _isa(64, "madd", wide_lookup)
            return _isa(32, "madd" if "avx2" in available else "generic", narrow_lookup)
        case "avx2" if "avx2" in available:
            return _isa(32, "madd", "shuffle")
        case "vnni" | "avx2":
            needs = "avx512vnni with avx512bw and avx512vl, or avxvnni" if path == "vnni" else "avx2"
            raise HwsimError(f"path {path}: the target must have {needs}, and it has not; take portable")
    raise HwsimError(f"path must be one of {', '.join(PATHS)}, got '{path}'{nearest(str(path), PATHS)}")


@cache
def isa_of(path: str | None = None) -> Isa:
    """`choose` for the target that Numba compiles for."""
    return choose(features(), path)
