"""The tables of recipes, centroids and masks in docs/numerics.md, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.numerics import NumberFormat
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact
from hwsim.numerics.codebook import MuLaw
from hwsim.numerics.least_squares import LeastSquares
from hwsim.numerics.pruning import keep_largest, stored_places
from tests.execute.vectors import numbers, reals, vectors

RECIPES = {each.__name__: each for each in (BoundAware, LeastSquares, MinMax, NativeQat, Pact)}


@pytest.mark.parametrize("row", vectors("recipes"), ids=lambda row: row["recipe"])
def test_recipes(row: dict[str, str]) -> None:
    weights = np.array(reals(row["weights"]))[:, None]
    found = eval(row["recipe"], dict(RECIPES)).calibrate(weights)
    assert found.scale.reshape(-1).tolist() == reals(row["scales"])
    assert np.broadcast_to(found.zero_point, found.scale.shape).reshape(-1).tolist() == numbers(row["zero points"])
    assert found.quantize(weights)[:, 0].tolist() == numbers(row["codes"])


@pytest.mark.parametrize("row", vectors("centroids"), ids=lambda row: "-".join(row.values()))
def test_centroids(row: dict[str, str]) -> None:
    table = MuLaw(int(row["bits"]), denominator=row["d"]).table(float(row["μ"])).tolist()
    assert (table[:4], table[-4:]) == (numbers(row["least four"]), numbers(row["greatest four"]))


@pytest.mark.parametrize("row", vectors("pruning"), ids=lambda row: row["rule"])
def test_pruning(row: dict[str, str]) -> None:
    sparsity = NumberFormat.parse(f"int4/{row['rule']}").sparsity
    assert sparsity is not None
    mask = keep_largest(reals(row["weights"]), sparsity)
    assert mask.astype(int).tolist() == numbers(row["kept"])
    assert stored_places(mask, sparsity).tolist() == numbers(row["stored bits"])
