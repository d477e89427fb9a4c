"""Numbers as people read them."""

from __future__ import annotations

import math

DASH = "–"
_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent: `0.0590`, `4.36`, `158`, `61,400`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, digits - 1 - exponent)
    exponent = math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}"


def si(value: float, unit: str, digits: int = 3) -> str:
    """A quantity with an SI prefix: `si(6.83e10, "B/s")` is `68.3 GB/s`."""
    if value == 0:
        return f"0 {unit}"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    prefix = min(max(3 * (exponent // 3), min(_PREFIXES)), max(_PREFIXES))
    return f"{significant(value / 10**prefix, digits)} {_PREFIXES[prefix]}{unit}"


def binary_bytes(size_bytes: float) -> str:
    """A memory size: `2 MiB`, `64 KiB`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size_bytes >= 1024**power:
            return f"{size_bytes / 1024**power:.4g} {unit}"
    return f"{size_bytes:g} B"


def rate(ops_per_s: float, fmt: str) -> str:
    """A peak rate with the name of its format: `104.9 TOPS int4`, `13.1 TFLOPS fp16`."""
    return f"{si(ops_per_s, '', 4 if ops_per_s >= 1e14 else 3)}{operations(fmt)} {fmt}"


def operations(fmt: str) -> str:
    """`OPS` for integer formats, `FLOPS` for the others."""
    return "OPS" if fmt.startswith(("int", "codebook")) else "FLOPS"


def column_decimals(largest: float, digits: int = 5) -> int:
    """Decimals that give the largest number of a column so many digits, at most three of them decimals."""
    before = math.floor(math.log10(abs(largest))) + 1 if largest else 1
    return min(max(digits - max(before, 1), 0), 3)


def fixed(value: float, decimals: int) -> str:
    """A number of a column."""
    return f"{value:,.{decimals}f}"


def percent(part: float, whole: float, decimals: int = 1) -> str:
    """`part` of `whole` in percent, without the sign."""
    return f"{100 * part / whole:.{decimals}f}" if whole else DASH


def signed(value: float, decimals: int) -> str:
    """A change: `+11`, `-1.7`, `0`."""
    return f"{value:+.{decimals}f}" if round(value, decimals) else "0"


def number(value: float) -> str:
    """A number of a file: integers below ten million in full, others in six digits: `2097152`, `6.83e+10`."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:g}"


def plural(count: int, word: str, many: str = "") -> str:
    """`1 core`, `4 cores`; `many` where that is not the word and an s."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
