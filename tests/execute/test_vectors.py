"""Every row of the tables of docs/numerics.md, against the code that they document."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.reference.attention import softmax
from hwsim.execute.semantics import PROFILES, Semantics, accumulate, profile, requantize
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import (
    TIES,
    doubling_high_multiply,
    multiply_double,
    multiply_single,
    round_real,
    rounding_shift,
)
from hwsim.numerics.tables import fixed_table
from tests.execute.vectors import DOCUMENT, numbers, vectors


@pytest.mark.parametrize("ties", TIES)
def test_round_real(ties: str) -> None:
    rows = vectors("round_real")
    x = np.array([float(row["x"]) for row in rows])
    expected = [int(row[ties]) for row in rows]
    np.testing.assert_array_equal(round_real(x, ties), expected)
    np.testing.assert_array_equal(round_real(x.astype(np.float32), ties), expected)


@pytest.mark.parametrize("ties", TIES)
def test_rounding_shift(ties: str) -> None:
    for row in vectors("rounding_shift"):
        assert rounding_shift(int(row["x"]), int(row["shift"]), ties) == int(row[ties]), row


def test_doubling_high_multiply() -> None:
    for row in vectors("doubling_high_multiply"):
        assert doubling_high_multiply(int(row["a"]), int(row["b"]), int(row["bits"])) == int(row["result"]), row


def test_multiply() -> None:
    for row in vectors("multiply"):
        arguments = [int(row[name]) for name in ("x", "mantissa", "exponent")]
        assert multiply_single(*arguments) == int(row["single"]), row
        assert multiply_double(*arguments) == int(row["double half_away"]), row
        assert multiply_double(*arguments, "half_up") == int(row["double half_up"]), row


@pytest.mark.parametrize("name", PROFILES)
def test_requantize(name: str) -> None:
    for row in vectors("requantize"):
        code = requantize(int(row["accumulator"]), float(row["multiplier"]), int(row["zero_point"]), 8, profile(name))
        assert code == int(row[name]), row


def test_accumulate() -> None:
    for row in vectors("accumulate"):
        a, w = (np.array(numbers(row[name])) for name in "aw")
        for column, expected in row.items():
            if column in ("a", "w"):
                continue
            bits, overflow, *chunk = column.split()
            semantics = Semantics(
                "x", accumulator_bits=int(bits), overflow=overflow, accumulator_chunk=int(chunk[1]) if chunk else 0
            )
            assert accumulate(a, w[:, None], semantics) == int(expected), (row, column)


def test_quantize() -> None:
    for row in vectors("quantize"):
        for column, expected in row.items():
            if column in ("x", "scale", "zero_point"):
                continue
            form, order, ties = column.split()
            quantizer = Quantizer(
                np.array(float(row["scale"])), 8, np.array(int(row["zero_point"])),
                form=form, zero_point_order=order, ties=ties,
            )  # fmt: skip
            assert quantizer.quantize(float(row["x"])) == int(expected), (row, column)


def test_unit() -> None:
    for row in vectors("unit"):
        for form in ("unit", "divide"):
            quantizer = Quantizer(np.array(float(row["scale"])), 4, narrow=True, form=form)
            assert quantizer.quantize(float(row["x"])) == int(row[f"{form} code"]), row


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_tables(name: str) -> None:
    for row in vectors("tables"):
        assert fixed_table(name).lookup([int(row["code Q3.12"])]) == int(row[f"{name} Q0.15"]), row


def test_softmax() -> None:
    for row in vectors("softmax"):
        codes = softmax(numbers(row["codes"]), Quantizer(np.array(float(row["scale"]))))
        assert codes.tolist() == numbers(row["probabilities"]), row


def test_each_column_of_a_profile_is_told_apart() -> None:
    """Rows exist on which profiles with different rules differ, so a swapped rule is seen."""
    columns = {name: tuple(row[name] for row in vectors("requantize")) for name in PROFILES}
    rules = {name: (PROFILES[name].requantize, PROFILES[name].ties) for name in PROFILES}
    for first in PROFILES:
        for second in PROFILES:
            assert (columns[first] == columns[second]) == (rules[first] == rules[second]), (first, second)


def test_the_document_gives_every_profile() -> None:
    rows = {row["profile"]: row for row in vectors("profiles")}
    assert list(rows) == list(PROFILES)
    for name, row in rows.items():
        bits, overflow, *chunk = row["accumulator"].replace(",", "").split()
        assert PROFILES[name] == Semantics(
            name,
            ties=row["ties"],
            requantize=row["requantize"],
            accumulator_bits=int(bits),
            overflow={"wraps": "wrap", "saturates": "saturate"}[overflow],
            accumulator_chunk=int(chunk[-1]) if chunk else 0,
            bias=row["bias"],
        )


def test_the_example_of_the_document_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    exec(compile(example, str(DOCUMENT), "exec"), {})


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(HwsimError, match="unknown semantics profile 'tflite-rui'; nearest: tflite-ruy"):
        profile("tflite-rui")
