"""Number formats: what a tensor's values are coded in, and exactly how many bits that stores.

A format is a value, written `BASE[/channel|/groupN][/zp][/N:M[-index]]`: `int4`, `int4/channel`,
`int2/group96/zp`, `int4/channel/2:4`, `int4/2:4-index`, `codebook5`, `fp16`.
Sizes are bits, exact integers, without padding to bytes or words.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, SupportsIndex

from hwsim.errors import HwsimError, nearest

Kind = Literal["int", "float", "codebook"]
Granularity = Literal["tensor", "channel", "group"]

GRAMMAR = "BASE[/channel|/groupN][/zp][/N:M[-index]]"
SCALE_BITS = 32
CENTROID_BITS = 8

_CODE_BITS: dict[str, int] = {
    **{f"int{bits}": bits for bits in (1, 2, 3, 4, 5, 6, 8, 16, 32)},
    **{"fp16": 16, "bf16": 16, "fp32": 32},
    **{f"codebook{bits}": bits for bits in range(1, 9)},
}
BASES: tuple[str, ...] = tuple(_CODE_BITS)

_STAGES = ("granularity", "zero point", "sparsity")
_PARTS = (
    (0, re.compile(r"channel|group(?P<size>[1-9][0-9]*)")),
    (1, re.compile(r"zp")),
    (2, re.compile(r"(?P<keep>[1-9][0-9]*):(?P<of>[1-9][0-9]*)(?P<index>-index)?")),
)


class FormatError(HwsimError):
    """A number format that does not exist; `reason` is the rule that it breaks, without the text itself."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"'{text}' must be a number format: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Sparsity:
    """N:M sparsity: `keep` weights are kept of each `group` consecutive ones along the reduction axis.

    `storage` says how the kept positions are stored: `mask` is 1 bit per original weight, `index` is
    ceil(log2(group)) bits per kept weight. At 2:4 the two cost the same; at 1:4 the index costs half.
    Raises FormatError unless 1 <= keep < group. Source: Ding et al., ICASSP 2024, arXiv 2312.08553.
    """

    keep: int
    group: int
    storage: Literal["mask", "index"] = "mask"

    def __post_init__(self) -> None:
        if not 1 <= self.keep < self.group:
            raise FormatError(str(self), f"N:M must have 1 <= N < M, got {self.keep}:{self.group}")
        if self.storage not in ("mask", "index"):
            raise FormatError(str(self), f"the sparsity storage must be mask or index, got {self.storage}")

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}{'-index' if self.storage == 'index' else ''}"

    @property
    def index_bits(self) -> int:
        """Bits of one stored position, ceil(log2(group))."""
        return (self.group - 1).bit_length()


@dataclass(frozen=True, slots=True)
class StoredBits:
    """The exact bits in which one tensor is stored, part by part."""

    codes: int
    scales: int
    zero_points: int
    sparsity: int
    codebook: int

    @property
    def total(self) -> int:
        """Sum of the parts, in bits."""
        return self.codes + self.scales + self.zero_points + self.sparsity + self.codebook


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How the values of a tensor are coded.

    `base`: one of `BASES`. `intB` is B-bit two's complement (int1: -1 and +1) times a float32 scale,
    `codebookB` a B-bit index into a table of 2^B int8 centroids times a float32 scale
    (Zhen et al., SLT 2022, arXiv 2210.09188).
    `granularity`: one scale per tensor, per output channel, or per `group_size` consecutive elements of
    the reduction axis of a channel. `zero_point`: whether each scale has a zero point beside it.
    `sparsity`: N:M along the reduction axis, or None when dense.
    Raises FormatError for a combination that has no meaning.
    """

    base: str
    granularity: Granularity = "tensor"
    group_size: int = 0
    zero_point: bool = False
    sparsity: Sparsity | None = None

    def __post_init__(self) -> None:
        reason = _broken_rule(self)
        if reason:
            raise FormatError(str(self), reason)

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> NumberFormat:
        """Read `BASE[/channel|/groupN][/zp][/N:M[-index]]`; `parse(str(f)) == f`.

        Raises FormatError with the rule and the nearest valid name.
        """
        base, *parts = text.split("/")
        if base not in _CODE_BITS:
            raise FormatError(text, f"unknown base '{base}'{nearest(base.lower(), BASES)}")
        matches = _match_parts(text, parts)
        granularity, zero_point, sparsity = (matches.get(stage) for stage in range(3))
        size = granularity["size"] if granularity else None
        return cls(
            base,
            granularity="tensor" if granularity is None else "group" if size else "channel",
            group_size=int(size or 0),
            zero_point=zero_point is not None,
            sparsity=_sparsity(sparsity, text) if sparsity else None,
        )

    def __str__(self) -> str:
        parts = [self.base]
        if self.granularity != "tensor":
            parts.append(f"group{self.group_size}" if self.granularity == "group" else self.granularity)
        if self.zero_point:
            parts.append("zp")
        if self.sparsity:
            parts.append(str(self.sparsity))
        return "/".join(parts)

    @property
    def code_bits(self) -> int:
        """Bits of one stored code."""
        return _CODE_BITS[self.base]

    @property
    def kind(self) -> Kind:
        """`int`, `float` or `codebook`."""
        if self.base.startswith("int"):
            return "int"
        return "codebook" if self.base.startswith("codebook") else "float"

    @property
    def is_float(self) -> bool:
        """Whether a code is its own value, without a scale."""
        return self.kind == "float"

    @property
    def compute(self) -> str:
        """Base of the format in which the multiply-accumulate is done.

        int5 and int6 widen to int8; a codebook is looked up to its int8 centroids; the others are themselves.
        """
        return "int8" if self.kind == "codebook" or self.base in ("int5", "int6") else self.base

    @property
    def scale_bits(self) -> int:
        """Bits of one scale: 32, or 0 for a float format, which has none."""
        return 0 if self.is_float else SCALE_BITS

    def stored_bits(self, shape: Sequence[SupportsIndex]) -> StoredBits:
        """Exact bits that store a tensor of this format.

        `shape`: (K..., N), the last axis is the output channel, the axes before it are the reduction axis,
        flattened. A vector (K,) is a single channel, reduced along its only axis; () is (1, 1).

        codes = code_bits * K * N * keep / group; one scale per tensor, per channel, or per group of a channel
        (groups are counted over the dense axis); one zero point of code_bits per scale; a codebook of
        2^code_bits int8 centroids per tensor. Raises HwsimError when a dimension is not a positive integer,
        or when a scale group or N:M does not divide K.
        """
        reduction, channels = self._matrix(shape)
        elements = reduction * channels
        kept, positions = elements, 0
        if self.sparsity:
            kept = elements // self.sparsity.group * self.sparsity.keep
            positions = elements if self.sparsity.storage == "mask" else kept * self.sparsity.index_bits
        scales = 0 if self.is_float else self._scale_count(reduction, channels)
        return StoredBits(
            codes=self.code_bits * kept,
            scales=self.scale_bits * scales,
            zero_points=self.code_bits * scales if self.zero_point else 0,
            sparsity=positions,
            codebook=CENTROID_BITS << self.code_bits if self.kind == "codebook" else 0,
        )

    def _scale_count(self, reduction: int, channels: int) -> int:
        if self.granularity == "tensor":
            return 1
        return channels if self.granularity == "channel" else channels * (reduction // self.group_size)

    def _matrix(self, shape: Sequence[SupportsIndex]) -> tuple[int, int]:
        """(K, N) of a shape, checked against the scale groups and N:M."""
        sizes = tuple(_positive(size, shape) for size in shape)
        reduction, channels = (math.prod(sizes[:-1]), sizes[-1]) if len(sizes) > 1 else (math.prod(sizes), 1)
        dividers = {"a multiple of the scale group": self.group_size if self.granularity == "group" else 1}
        if self.sparsity:
            dividers["a multiple of the M of N:M"] = self.sparsity.group
        for rule, divider in dividers.items():
            if reduction % divider:
                raise HwsimError(
                    f"{self} on shape {sizes}: the reduction axis must be {rule}, {divider}, got {reduction}"
                )
        return reduction, channels


def _positive(size: SupportsIndex, shape: Sequence[SupportsIndex]) -> int:
    try:
        exact = operator.index(size)
    except TypeError:
        exact = 0
    if exact < 1:
        raise HwsimError(f"shape {tuple(shape)}: each dimension must be a positive integer, got {size}")
    return exact


def _match_parts(text: str, parts: Sequence[str]) -> dict[int, re.Match[str]]:
    """The parts after the base, by stage of the grammar."""
    matches: dict[int, re.Match[str]] = {}
    for part in parts:
        found = [(stage, match) for stage, regex in _PARTS if (match := regex.fullmatch(part))]
        if not found:
            known = ("channel", "group96", "zp", "2:4", "2:4-index")
            raise FormatError(text, f"unknown part '{part}'{nearest(part, known)}")
        stage, match = found[0]
        if stage in matches:
            raise FormatError(text, f"the {_STAGES[stage]} must be given once, got '{part}' too")
        if matches and stage < max(matches):
            after = _STAGES[max(matches)]
            raise FormatError(text, f"'{part}' must stand before the {after}, as in {GRAMMAR}")
        matches[stage] = match
    return matches


def _sparsity(match: re.Match[str], text: str) -> Sparsity:
    try:
        return Sparsity(int(match["keep"]), int(match["of"]), "index" if match["index"] else "mask")
    except FormatError as error:
        raise FormatError(text, error.reason) from None


def _broken_rule(fmt: NumberFormat) -> str:
    """The rule that a format breaks, or nothing."""
    if fmt.base not in _CODE_BITS:
        return f"unknown base '{fmt.base}'{nearest(fmt.base.lower(), BASES)}"
    if fmt.granularity not in ("tensor", "channel", "group"):
        return f"granularity must be one of tensor, channel, group, got {fmt.granularity}"
    if (fmt.granularity == "group") != (fmt.group_size >= 1) or fmt.group_size < 0:
        return f"group_size must be at least 1 with groups and 0 without, got {fmt.group_size}"
    if fmt.is_float and (fmt.granularity != "tensor" or fmt.zero_point):
        return "a float format has no scale granularity and no zero point, only N:M"
    if fmt.kind == "codebook" and fmt.zero_point:
        return "a codebook format has no zero point: its table holds any centroid"
    return ""


def mac_format(first: NumberFormat, second: NumberFormat) -> str:
    """Base of the format in which products of two operands are computed: the wider of the two.

    A float operand makes the product a float; of two floats of equal width fp16 is taken before bf16.
    """
    bases = [NumberFormat(operand.compute) for operand in (first, second)]
    floats = [base for base in bases if base.is_float]
    widest = max(floats or bases, key=lambda base: (base.code_bits, base.base))
    return widest.base
