"""Hypothesis strategies for integer semantics."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.execute.semantics import Semantics


@st.composite
def narrow_semantics(draw: st.DrawFn) -> Semantics:
    """Every accumulator width and overflow rule, with short chunks or none."""
    return Semantics(
        "drawn",
        accumulator_bits=draw(st.sampled_from([16, 24, 32])),
        overflow=draw(st.sampled_from(["wrap", "saturate"])),
        accumulator_chunk=draw(st.integers(0, 9)),
    )
