"""Number formats: their texts, their exact sizes, and the messages of the wrong ones."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, astuple
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics import FormatError, NumberFormat, Sparsity, StoredBits
from hwsim.numerics.formats import BASES
from tests.strategies import number_formats, weight_shapes

INTS = ("int1", "int2", "int3", "int4", "int5", "int6", "int8", "int16", "int32")
CODEBOOKS = tuple(f"codebook{bits}" for bits in range(1, 9))


def percent_of_fp32(text: str, shape: tuple[int, ...]) -> Decimal:
    """Stored size as a share of float32, exactly."""
    fp32 = NumberFormat("fp32").stored_bits(shape).total
    return Decimal(100 * NumberFormat.parse(text).stored_bits(shape).total) / fp32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int4", NumberFormat("int4")),
        ("int4/channel", NumberFormat("int4", "channel")),
        ("int2/group96/zp", NumberFormat("int2", "group", 96, zero_point=True)),
        ("int4/channel/2:4", NumberFormat("int4", "channel", sparsity=Sparsity(2, 4))),
        ("int4/2:4-index", NumberFormat("int4", sparsity=Sparsity(2, 4, "index"))),
        ("int8/zp/1:4", NumberFormat("int8", zero_point=True, sparsity=Sparsity(1, 4))),
        ("codebook5", NumberFormat("codebook5")),
        ("codebook5/channel", NumberFormat("codebook5", "channel")),
        ("fp16/2:4", NumberFormat("fp16", sparsity=Sparsity(2, 4))),
    ],
)
def test_a_text_is_a_format_and_back(text: str, expected: NumberFormat) -> None:
    assert NumberFormat.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("base", "kind", "code_bits", "compute", "scale_bits"),
    [
        ("int1", "int", 1, "int1", 32),
        ("int2", "int", 2, "int2", 32),
        ("int3", "int", 3, "int3", 32),
        ("int4", "int", 4, "int4", 32),
        ("int5", "int", 5, "int8", 32),
        ("int6", "int", 6, "int8", 32),
        ("int8", "int", 8, "int8", 32),
        ("int16", "int", 16, "int16", 32),
        ("int32", "int", 32, "int32", 32),
        ("fp16", "float", 16, "fp16", 0),
        ("bf16", "float", 16, "bf16", 0),
        ("fp32", "float", 32, "fp32", 0),
        *((f"codebook{bits}", "codebook", bits, "int8", 32) for bits in range(1, 9)),
    ],
)
def test_what_each_base_is(base: str, kind: str, code_bits: int, compute: str, scale_bits: int) -> None:
    fmt = NumberFormat(base)
    assert (fmt.kind, fmt.code_bits, fmt.compute, fmt.scale_bits) == (kind, code_bits, compute, scale_bits)
    assert fmt.is_float == (kind == "float")


def test_every_base_is_listed_once() -> None:
    assert sorted(BASES) == sorted((*INTS, *CODEBOOKS, "fp16", "bf16", "fp32"))


def test_a_format_is_a_value() -> None:
    fmt = NumberFormat("int4", "channel")
    assert len({fmt, NumberFormat("int4", "channel"), NumberFormat("int4")}) == 2
    with pytest.raises(FrozenInstanceError):
        fmt.base = "int8"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int7", "'int7' must be a number format: unknown base 'int7'; nearest: int8, int6, int5"),
        ("FP16", "'FP16' must be a number format: unknown base 'FP16'; nearest: fp16, bf16, fp32"),
        (
            "codebook9/channel",
            "'codebook9/channel' must be a number format: unknown base 'codebook9'; "
            "nearest: codebook8, codebook7, codebook6",
        ),
        ("int4/chanel", "'int4/chanel' must be a number format: unknown part 'chanel'; nearest: channel"),
        ("int4/group0", "'int4/group0' must be a number format: unknown part 'group0'; nearest: group96"),
        (
            "int4/2:4-idx",
            "'int4/2:4-idx' must be a number format: unknown part '2:4-idx'; nearest: 2:4-index, 2:4",
        ),
        (
            "int4/",
            "'int4/' must be a number format: unknown part ''; known: 2:4, 2:4-index, channel, group96, zp",
        ),
        (
            "int4/zp/channel",
            "'int4/zp/channel' must be a number format: 'channel' must stand before the zero point, "
            "as in BASE[/channel|/groupN][/zp][/N:M[-index]]",
        ),
        (
            "int4/2:4/zp",
            "'int4/2:4/zp' must be a number format: 'zp' must stand before the sparsity, "
            "as in BASE[/channel|/groupN][/zp][/N:M[-index]]",
        ),
        (
            "int4/channel/group96",
            "'int4/channel/group96' must be a number format: the granularity must be given once, got 'group96' too",
        ),
        ("int4/4:4", "'int4/4:4' must be a number format: N:M must have 1 <= N < M, got 4:4"),
        (
            "fp16/channel",
            "'fp16/channel' must be a number format: a float format has no scale granularity and "
            "no zero point, only N:M",
        ),
        (
            "fp32/zp",
            "'fp32/zp' must be a number format: a float format has no scale granularity and no zero point, only N:M",
        ),
        (
            "codebook4/zp",
            "'codebook4/zp' must be a number format: a codebook format has no zero point: its table holds any centroid",
        ),
    ],
)
def test_a_wrong_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        NumberFormat.parse(text)
    assert str(caught.value) == message
    assert isinstance(caught.value, HwsimError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"base": "int7"},
            "'int7' must be a number format: unknown base 'int7'; nearest: int8, int6, int5",
        ),
        (
            {"base": "int4", "granularity": "row"},
            "'int4/row' must be a number format: granularity must be one of tensor, channel, group, got row",
        ),
        (
            {"base": "int4", "granularity": "group"},
            "'int4/group0' must be a number format: group_size must be at least 1 with groups and 0 without, got 0",
        ),
        (
            {"base": "int4", "group_size": 32},
            "'int4' must be a number format: group_size must be at least 1 with groups and 0 without, got 32",
        ),
    ],
)
def test_a_wrong_construction_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError) as caught:
        NumberFormat(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_wrong_sparsity_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^'0:4' must be a number format: N:M must have 1 <= N < M, got 0:4$"):
        Sparsity(0, 4)
    with pytest.raises(FormatError, match=r"the sparsity storage must be mask or index, got list$"):
        Sparsity(2, 4, "list")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("fp32", (10, 20), StoredBits(6400, 0, 0, 0, 0)),
        ("fp16", (), StoredBits(16, 0, 0, 0, 0)),
        ("int4", (10, 20), StoredBits(800, 32, 0, 0, 0)),
        ("int4/channel", (10, 20), StoredBits(800, 640, 0, 0, 0)),
        ("int4/group5", (10, 20), StoredBits(800, 2 * 640, 0, 0, 0)),
        ("int4/group5/zp", (10, 20), StoredBits(800, 2 * 640, 40 * 4, 0, 0)),
        ("int4/group6", (3, 2, 20), StoredBits(480, 640, 0, 0, 0)),
        ("int8/channel", (20,), StoredBits(160, 32, 0, 0, 0)),
        ("int8/group5", (20,), StoredBits(160, 128, 0, 0, 0)),
        ("int8", (), StoredBits(8, 32, 0, 0, 0)),
        ("int4/2:4", (8, 20), StoredBits(320, 32, 0, 160, 0)),
        ("int4/2:4-index", (8, 20), StoredBits(320, 32, 0, 160, 0)),
        ("int4/1:4-index", (8, 20), StoredBits(160, 32, 0, 80, 0)),
        ("int4/2:5-index", (10, 20), StoredBits(320, 32, 0, 240, 0)),
        ("codebook5", (1024, 4096), StoredBits(5 * 2**22, 32, 0, 0, 256)),
        ("int1", (7, 3), StoredBits(21, 32, 0, 0, 0)),
    ],
)
def test_stored_bits(text: str, shape: tuple[int, ...], expected: StoredBits) -> None:
    assert NumberFormat.parse(text).stored_bits(shape) == expected


def test_sizes_beyond_64_bits_stay_exact() -> None:
    bits = NumberFormat("fp32").stored_bits((np.int32(2**30), np.int64(2**31), 2**20))
    assert bits.codes == 2**86


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        (
            "int2/group96",
            (5, 20, 8),
            "int2/group96 on shape (5, 20, 8): the reduction axis must be a multiple of the scale group, 96, got 100",
        ),
        (
            "int4/2:4",
            (6, 8),
            "int4/2:4 on shape (6, 8): the reduction axis must be a multiple of the M of N:M, 4, got 6",
        ),
        (
            "int4/2:4",
            (),
            "int4/2:4 on shape (): the reduction axis must be a multiple of the M of N:M, 4, got 1",
        ),
        ("int4", (4, 0), "shape (4, 0): each dimension must be a positive integer, got 0"),
        ("fp32", (-1,), "shape (-1,): each dimension must be a positive integer, got -1"),
        ("fp32", (2.0, 3), "shape (2.0, 3): each dimension must be a positive integer, got 2.0"),
    ],
)
def test_a_wrong_shape_is_refused(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        NumberFormat.parse(text).stored_bits(shape)
    assert str(caught.value) == message


# The size column of Ding et al., ICASSP 2024 (arXiv 2312.08553), in per cent of float32, on a 1536 x 1536
# matrix. It counts the codes, one mask bit per original weight, and one float32 scale per sub-channel
# (S / 1536 for S sub-channels of 1536 / S weights). It counts neither zero points nor the scale that every
# channel has in any case. Totals with one scale per tensor agree to the printed decimal.
@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("int8", "25.0"),
        ("int4", "12.5"),
        ("int2", "6.3"),
        ("int2/group96", "7.3"),
        ("int2/group48", "8.3"),
        ("int2/group24", "10.4"),
        ("fp32/2:4", "53.1"),
        ("fp32/1:4", "28.1"),
        ("int4/2:4", "9.4"),
        ("int4/2:4-index", "9.4"),
    ],
)
def test_sizes_published_for_usm_lite(text: str, published: str) -> None:
    percent = percent_of_fp32(text, (1536, 1536))
    assert percent.quantize(Decimal("0.1"), ROUND_HALF_UP) == Decimal(published)


@pytest.mark.parametrize(
    ("text", "exact", "published"),
    [
        ("int8/channel", "25.07", "25.0"),
        ("int4/channel", "12.57", "12.5"),
        ("int2/group96/zp", "7.36", "7.3"),
        ("int2/group24/zp", "10.68", "10.4"),
    ],
)
def test_what_the_published_sizes_leave_out(text: str, exact: str, published: str) -> None:
    percent = percent_of_fp32(text, (1536, 1536))
    assert percent.quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal(exact)
    assert percent.quantize(Decimal("0.1"), ROUND_HALF_UP) != Decimal(published)


def test_a_codebook_matrix_is_as_large_as_published() -> None:
    """Zhen et al., SLT 2022, arXiv 2210.09188: a 5-bit 1024 x 4096 matrix takes 2.5 MB, in int8 4 MB."""
    assert NumberFormat("codebook5").stored_bits((1024, 4096)).codes == 5 * 2**19 * 8
    assert NumberFormat("int8").stored_bits((1024, 4096)).codes == 4 * 2**20 * 8


@given(number_formats())
def test_law_the_text_is_the_format(fmt: NumberFormat) -> None:
    assert NumberFormat.parse(str(fmt)) == fmt
    assert hash(NumberFormat.parse(str(fmt))) == hash(fmt)


@given(number_formats(), st.data())
def test_law_the_total_is_the_sum_of_its_parts(fmt: NumberFormat, data: st.DataObject) -> None:
    bits = fmt.stored_bits(data.draw(weight_shapes(fmt)))
    assert bits.total == sum(astuple(bits))
    assert all(type(part) is int and part >= 0 for part in astuple(bits))


@given(number_formats(), st.data())
def test_law_codes_are_bits_times_kept_elements(fmt: NumberFormat, data: st.DataObject) -> None:
    shape = data.draw(weight_shapes(fmt))
    kept, of = (fmt.sparsity.keep, fmt.sparsity.group) if fmt.sparsity else (1, 1)
    assert fmt.stored_bits(shape).codes * of == fmt.code_bits * int(np.prod(shape)) * kept


@pytest.mark.parametrize("bases", [INTS, CODEBOOKS])
@given(st.data())
def test_law_more_code_bits_are_never_smaller(bases: tuple[str, ...], data: st.DataObject) -> None:
    fmt = data.draw(number_formats(bases))
    shape = data.draw(weight_shapes(fmt))
    totals = [
        NumberFormat(base, fmt.granularity, fmt.group_size, fmt.zero_point, fmt.sparsity).stored_bits(shape).total
        for base in bases
    ]
    assert totals == sorted(totals)
    assert len(set(totals)) == len(totals)
