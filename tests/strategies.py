"""Hypothesis strategies for the values of hwsim; each new feature adds its own here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

from hwsim.numerics import NumberFormat, Sparsity
from hwsim.numerics.formats import BASES, Granularity


@st.composite
def sparsities(draw: st.DrawFn) -> Sparsity:
    """N:M with M up to 16, by mask or by index."""
    group = draw(st.integers(2, 16))
    return Sparsity(draw(st.integers(1, group - 1)), group, draw(st.sampled_from(("mask", "index"))))


@st.composite
def number_formats(draw: st.DrawFn, bases: Sequence[str] = BASES) -> NumberFormat:
    """Every valid combination of base, scale granularity, zero point and N:M."""
    dense = NumberFormat(draw(st.sampled_from(bases)))
    sparsity = draw(st.none() | sparsities())
    if dense.is_float:
        return NumberFormat(dense.base, sparsity=sparsity)
    granularities: tuple[Granularity, ...] = ("tensor", "channel", "group")
    granularity = draw(st.sampled_from(granularities))
    return NumberFormat(
        dense.base,
        granularity=granularity,
        group_size=draw(st.integers(1, 64)) if granularity == "group" else 0,
        zero_point=dense.kind == "int" and draw(st.booleans()),
        sparsity=sparsity,
    )


@st.composite
def weight_shapes(draw: st.DrawFn, fmt: NumberFormat) -> tuple[int, ...]:
    """Shapes (K..., N) of which the format's scale groups and N:M divide the reduction axis."""
    step = math.lcm(fmt.group_size or 1, fmt.sparsity.group if fmt.sparsity else 1)
    leading = draw(st.lists(st.integers(1, 5), max_size=2))
    return (*leading, step * draw(st.integers(1, 8)), draw(st.integers(1, 40)))
