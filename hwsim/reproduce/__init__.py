"""Published figures beside simulated ones: each paper under one set of assumptions, and what these decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from hwsim.reproduce.record import Listing, Reproduction, Row, Sensitivity

__all__ = ["REPRODUCTIONS", "Listing", "Reproduction", "Row", "Sensitivity"]


def _of(module: str) -> Callable[..., Reproduction]:
    def reproduce(on_step: Callable[[int, int], None] | None = None) -> Reproduction:
        found: Callable[..., Reproduction] = import_module(f"hwsim.reproduce.{module}").reproduce
        return found(on_step)

    return reproduce


REPRODUCTIONS: Mapping[str, Callable[..., Reproduction]] = {
    "rnnt-int4": _of("rnnt_int4"),
    "gq": _of("gq"),
    "conformer-4bit": _of("conformer_4bit"),
    "usm-lite": _of("usm_lite"),
    "green-asr": _of("green_asr"),
    "analog-rnnt": _of("analog_rnnt"),
}
"""Name of a paper to the function that reproduces its figures; all take `on_step(done, total)`."""
