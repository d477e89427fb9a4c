"""Every row of the tables of docs/numerics.md, against the code that they document."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.half_product import half_product
from hwsim.execute.operations import COPIES, MAKERS
from hwsim.execute.projection import Coding, projection
from hwsim.execute.reference.attention import softmax
from hwsim.execute.reference.half import half_matmul
from hwsim.execute.semantics import PROFILES, TRAINING, Semantics, accumulate, profile, requantize
from hwsim.numerics.codebook import Codebook
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
from hwsim.trace import Function, Kind
from tests.execute.vectors import DOCUMENT, codes_of, numbers, reals, vectors, words


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


def test_the_examples_of_the_document_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 2
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(DOCUMENT), "exec"), names)


def operations() -> list[tuple[Kind, Function, dict[str, str]]]:
    return [
        (Kind[row["kind"]], Function[name], row) for row in vectors("operations") for name in words(row["function"])
    ]


def differ(kind: Kind, function: Function, semantics: Semantics) -> bool:
    pairs = zip(codes_of(kind, function, TRAINING), codes_of(kind, function, semantics), strict=True)
    return any((ours != theirs).any() for ours, theirs in pairs)


def test_the_document_gives_every_operation() -> None:
    rows = [(kind, function) for kind, function, _ in operations()]
    assert len(rows) == len(set(rows))
    assert set(rows) == set(MAKERS)
    rest = {kind for kind in Kind if kind not in {kind for kind, _ in rows}}
    assert rest - {*COPIES} == {Kind.TOPK, Kind.HOST, Kind.SEND, Kind.LAUNCH}


@pytest.mark.parametrize(("kind", "function", "row"), operations())
def test_what_a_profile_changes(kind: Kind, function: Function, row: dict[str, str]) -> None:
    """An accumulator of 16 bits, and a requantization that truncates, change what the table says and no more."""
    narrow = Semantics("narrow", accumulator_bits=16, overflow="saturate")
    truncating = Semantics("truncating", ties="toward_zero", bias="integer")
    assert {"profile": True, "none": False}[row["sums"]] == differ(kind, function, narrow)
    changes = {"profile": True, "grid": False, "softmax": False, "table": False}
    assert changes[row["codes"]] == differ(kind, function, truncating)


def coding(name: str) -> Coding:
    base, *rest = name.split()
    if base.startswith("codebook"):
        size = 1 << int(base.removeprefix("codebook"))
        return Codebook(np.linspace(-128, 127, size).round().astype(np.int64), np.asarray(1.0))
    return Quantizer(
        np.ones(3 if "channel" in rest else ()), int(base.removeprefix("int")),
        np.asarray(int(rest[1]) if "zero_point" in rest else 0), narrow="narrow" in rest, half_step="half_step" in rest,
    )  # fmt: skip


@pytest.mark.parametrize("row", vectors("weights"), ids=lambda row: row["coding"])
def test_weights(row: dict[str, str]) -> None:
    found = coding(row["coding"])
    low, high = int(row["least"]), int(row["greatest"])
    assert found.code_range == (low, high)
    every = np.arange(low, high + 1)
    codes = np.repeat(every[:, None], 3, axis=1)
    table = found.table if isinstance(found, Codebook) else None
    values = [eval(row["value"], {"c": int(code), "table": table}) for code in every]
    np.testing.assert_array_equal(found.dequantize(codes)[:, 0], values)
    packed = projection("w", codes, found, Quantizer(np.asarray(1.0)), None).packed
    assert packed is not None
    assert packed.layout == row["packed as"]


def test_half_matmul() -> None:
    for row in vectors("half_matmul"):
        x = np.array([reals(row["x"])], np.float16)
        w, bias = np.array(reals(row["w"]), np.float16)[:, None], np.array(reals(row["bias"]), np.float16)
        assert half_matmul(x, w, bias)[0, 0] == float(row["float32 sums"]), row
        assert half_product(x, w, bias)[0, 0] == float(row["float32 sums"]), row
        assert half_matmul(x, w, bias, "float16")[0, 0] == float(row["float16 sums"]), row


def test_the_document_counts_the_onnx_cases() -> None:
    pytest.importorskip("onnx")
    from tests.execute.test_onnx_cases import CASES, OPERATORS

    def operator(name: str) -> str:
        return "DynamicQuantizeLinear" if "dynamicquantize" in name else CASES[name].model.graph.node[0].op_type

    rows = {row["operator"]: row for row in vectors("onnx_cases")}
    assert list(rows) == list(OPERATORS)
    assert {name: int(row["cases"]) for name, row in rows.items()} == Counter(map(operator, CASES))
    recurrent = {name for name, row in rows.items() if row["compared"] == "float32, tolerance of the case"}
    assert recurrent == {"LSTM", "GRU", "RNN"}
    assert f"all {len(CASES)} |" in DOCUMENT.read_text("utf-8")


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(HwsimError, match="unknown semantics profile 'tflite-rui'; nearest: tflite-ruy"):
        profile("tflite-rui")
