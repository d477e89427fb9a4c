"""Published figures beside simulated ones: each paper under one set of assumptions, and what these decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwsim.reproduce.record import Reproduction, Row, Sensitivity

__all__ = ["REPRODUCTIONS", "Reproduction", "Row", "Sensitivity", "reproduce_rnnt_int4"]


def reproduce_rnnt_int4(on_step: Callable[[int, int], None] | None = None) -> Reproduction:
    """The INT4 RNN-T with language model fusion on RaPiD, see `hwsim.reproduce.rnnt_int4`."""
    from hwsim.reproduce.rnnt_int4 import reproduce

    return reproduce(on_step)


REPRODUCTIONS: Mapping[str, Callable[..., Reproduction]] = {"rnnt-int4": reproduce_rnnt_int4}
"""Name of a paper to the function that reproduces its figures; all take `on_step(done, total)`."""
