"""A table that is looked up by its columns and multiplied as a matrix: one tensor, with scales of words or of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.numerics import LayerPrecision, NumberFormat, PartialPrecision, PrecisionPolicy
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

WORDS, SIZE, ROWS = 7, 8, 6
INPUT = Quantizer(np.asarray(0.013), 8)


def network(
    table: Quantizer, row: Quantizer | None, size: int = SIZE, policy: PrecisionPolicy | None = None
) -> Executable:
    """row = columns of the table by labels; out = x @ table."""
    b = TraceBuilder("t")
    labels = b.tensor("embedding.labels", Role.STATE, (ROWS,))
    weight = b.tensor("embedding.table", Role.WEIGHT, (SIZE, WORDS))
    found = b.tensor("embedding.row", Role.ACTIVATION, (ROWS, size))
    x, out = b.tensor("output.x", Role.ACTIVATION, (ROWS, SIZE)), b.tensor("output.out", Role.STATE, (ROWS, WORDS))
    b.attributes("embedding", columns=True)
    b.op(Kind.LOOKUP, "embedding", [Operand(weight, size), Operand(labels, 1)], [Operand(found, size)], m=ROWS, n=size)
    b.matmul("output", [x], weight, out, m=ROWS)
    grids: dict[str, Any] = {"embedding.table": table, "output.x": INPUT}
    if row is not None:
        grids["embedding.row"] = row
    trace = b.build() if policy is None else b.build().with_precision(policy)
    return Executable(trace, {"embedding.table": codes(table)}, grids)


def codes(table: Quantizer) -> Any:
    low, high = table.code_range
    return np.random.default_rng(0).integers(low, high + 1, (SIZE, WORDS))


TABLES = {
    "binary": Quantizer(np.asarray(0.21), 1, half_step=True),
    "ternary": Quantizer(np.asarray(0.17), 2, narrow=True),
    "a scale for each word": Quantizer(np.linspace(0.1, 0.3, WORDS)[None], 4, narrow=True),
    "16 bits": Quantizer(np.asarray(0.0007), 16, narrow=True),
}


@pytest.mark.parametrize(
    ("name", "row"),
    [(name, row) for name, table in TABLES.items() for row in ("own", "another", "reals")
     if row != "own" or table.scale.size == 1],
)  # fmt: skip
def test_columns_are_looked_up_and_the_same_codes_are_multiplied(name: str, row: str) -> None:
    """The grid of an activation, such as the table's own, has one scale."""
    table = TABLES[name]
    grid = {"own": table, "another": Quantizer(np.asarray(0.004), 16), "reals": None}[row]
    executable = network(table, grid)
    labels = np.array([3, 0, 6, 6, 1, 2])
    x = np.random.default_rng(1).integers(-128, 128, (ROWS, SIZE)).astype(np.int8)
    out = executable.run({"embedding.labels": labels, "output.x": x})
    values = table.dequantize(codes(table))
    wanted = values[:, labels].T
    assert np.array_equal(out["embedding.row"], wanted if grid is None else grid.quantize(wanted))
    assert np.allclose(out["output.out"], INPUT.dequantize(x) @ values, rtol=1e-12, atol=1e-12)
    assert np.array_equal(executable.parameters()["embedding.table"], codes(table))
    assert len(executable.parameters()) == 1


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"\(LOOKUP, layer embedding\) must read columns of 4, got a table of shape"):
        network(TABLES["ternary"], None, size=4)


def test_weights_of_more_bits_than_any_product_takes() -> None:
    with pytest.raises(HwsimError, match=r"embedding.table: weights must have at most 16 bits, got 17"):
        network(Quantizer(np.asarray(0.1), 17, narrow=True), None)
    rule = ("embedding", PartialPrecision(weights=NumberFormat.parse("int16/2:4")))
    policy = PrecisionPolicy("p", (rule,), LayerPrecision.same(NumberFormat("fp32")))
    with pytest.raises(HwsimError, match=r"embedding.table: weights of 2:4 must fit 8 signed bits, got 16"):
        network(TABLES["16 bits"], None, policy=policy)
