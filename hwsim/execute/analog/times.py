"""Times since programming: seconds, and how they are written."""

from __future__ import annotations

import math
import re

from hwsim.errors import HwsimError

UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "y": 365 * 86400.0}
"""A year is 365 days."""


def parse_time(text: str) -> float:
    """Seconds of `1s`, `20min`, `1h`, `30d`, `1y`. Raises HwsimError for anything else and for negative times."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)(s|min|h|d|y)", text.strip())
    seconds = float(found[1]) * UNITS_S[found[2]] if found else math.nan
    if not math.isfinite(seconds):
        raise HwsimError(f"t must be a time of 0 or more such as 1s, 20min, 1h, 30d or 1y, got '{text}'")
    return seconds


def check_time(t_s: float) -> float:
    """The time. Raises HwsimError unless it is 0 or more, and finite."""
    if not (math.isfinite(t_s) and t_s >= 0):
        raise HwsimError(f"t_s must be 0 or more seconds since programming, got {t_s:g}")
    return t_s


def time_text(t_s: float) -> str:
    """`30 d`: a time in its largest whole unit."""
    for unit in ("y", "d", "h", "min"):
        if t_s >= UNITS_S[unit]:
            return f"{t_s / UNITS_S[unit]:.4g} {unit}"
    return f"{t_s:.4g} s"
