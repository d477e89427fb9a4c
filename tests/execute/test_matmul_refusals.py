"""What is wrong with weights or activations is said in one line, and no sum overflows in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute import matmul, matmul_wide, pack

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"codes": np.full((2, 2), 8), "format": "int4"}, "int4 codes must be -8 to 7, got 8 at (0, 0)"),
    ({"codes": np.array([[1], [0]]), "format": "int1"}, "int1 codes must be -1 or 1, got 0 at (1, 0)"),
    ({"codes": np.ones((2, 2)), "format": "int4"}, "int4 codes must be integers, got float64"),
    (
        {"codes": np.ones(3, np.int8), "format": "int4"},
        "int4 codes must be a matrix (K, N) with K and N at least 1, got shape (3,)",
    ),
    (
        {"codes": np.ones((0, 3), np.int8), "format": "int4"},
        "int4 codes must be a matrix (K, N) with K and N at least 1, got shape (0, 3)",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "fp16"},
        "fp16: weights must be of an integer or codebook format of at most 8 bits",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "int16"},
        "int16: weights must be of an integer or codebook format of at most 8 bits",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "codebook2"},
        "codebook2 needs its table of 4 int8 centroids, got None",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "codebook1", "table": [1, 200]},
        "codebook1: table must be 2 integers from -128 to 127, got 1 to 200",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "codebook1", "table": [1.0, 2.0]},
        "codebook1: table must be 2 integers from -128 to 127, got float64 of shape (2,)",
    ),
    ({"codes": np.ones((2, 2), np.int8), "format": "int8", "table": [1]}, "int8 has no codebook: table must be None"),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "int8", "zero_point": 1},
        "int8 has no zero point: zero_point must be None, or the format must end in /zp",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "int4/zp", "zero_point": 8},
        "int4/zp: zero_point must be -8 to 7, got 8 to 8",
    ),
    (
        {"codes": np.ones((2, 2), np.int8), "format": "int4/zp", "zero_point": [1, 1]},
        "int4/zp: zero_point must be integers of shape (), got int64 of shape (2,)",
    ),
    (
        {"codes": np.ones((4, 2), np.int8), "format": "int4/2:4"},
        "int4/2:4: at most 2 of 4 weights along K must be nonzero, got 4 at K 0 to 3 of column 0",
    ),
    (
        {"codes": np.ones((5, 2), np.int8), "format": "int4/group4"},
        "int4/group4 on shape (5, 2): the reduction axis must be a multiple of the scale group, 4, got 5",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS)
def test_wrong_weights_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        pack(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (np.ones((1, 3), np.int8), "activation codes must be (M, K) with K 4, got shape (1, 3)"),
        (np.ones(4, np.int8), "activation codes must be (M, K) with K 4, got shape (4,)"),
        (np.ones((1, 4)), "activation codes must be an array of int8, uint8 or int16, got float64"),
        ([[1, 2, 3, 4]], "activation codes must be an array of int8, uint8 or int16, got list"),
    ],
)
def test_wrong_activations_are_refused_in_one_line(activations: Any, message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        matmul(activations, pack(np.ones((4, 2), np.int8), "int8"))
    assert str(caught.value) == message


def test_wrong_outputs_are_refused() -> None:
    packed = pack(np.ones((4, 2), np.int8), "int8")
    with pytest.raises(HwsimError, match=r"out must be C-contiguous int32 of shape \(1, 2\), got int64 \(1, 2\)"):
        matmul(np.ones((1, 4), np.int8), packed, out=np.zeros((1, 2), np.int64))  # type: ignore[arg-type]


def test_the_accumulator_never_overflows_silently() -> None:
    depth = 512
    packed = pack(np.full((depth, 1), -128), "int8")
    assert matmul(np.full((1, depth), 32767, np.int16), packed)[0, 0] == -depth * 32767 * 128
    with pytest.raises(HwsimError) as caught:
        matmul(np.full((1, depth), -32768, np.int16), packed)
    assert str(caught.value) == (
        "matmul of int16 with int8 weights, K 512: sums must be below 2^31 = 2,147,483,648 for an int32 accumulator, "
        "got a worst case of max|a| 32,768 × column sum of |w| 65,536 = 2,147,483,648"
    )
    long = pack(np.full((131_072, 1), -128, np.int8), "int8")
    assert matmul(np.full((1, 131_072), 127, np.int8), long)[0, 0] == -131_072 * 127 * 128
    for product in (matmul, matmul_wide):
        with pytest.raises(HwsimError, match="must be below 2"):
            product(np.full((1, 131_072), -128, np.int8), long)
