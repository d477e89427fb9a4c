"""The report of a validation: what was compared with what, one table per mode, and the count."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwsim.execute.semantics import Semantics
from hwsim.report.layout import bullets, facts_grid, plain_table, section, spaced
from hwsim.report.units import DASH, plural
from hwsim.validate.analog import AnalogReport, LayerDeviation
from hwsim.validate.report import TIER_MEANINGS, LayerReport, Report, Source

TITLES = {
    "free-running": "Free-running: every layer reads what the executor computed before it",
    "teacher-forced": "Teacher-forced: every layer and every recurrent step reads the reference",
}


def validation_report(report: Report, compared: Mapping[str, str]) -> Group:
    """Everything that `hwsim validate` prints, for 100 columns; `compared` are paragraphs that come first."""
    parts: list[RenderableType] = [facts_grid({**compared, "Tier": f"{report.tier}, {TIER_MEANINGS[report.tier]}"})]
    if report.source is not None and report.source.notes:
        parts.append(section("Changed for this reference", bullets(report.source.notes)))
    for mode in dict.fromkeys(layer.mode for layer in report.layers):
        parts.append(mode_table(mode, [layer for layer in report.layers if layer.mode == mode]))
    if report.source is not None:
        parts += [section(title, bullets(lines)) for title, lines in _left_out(report.source) if lines]
    broken = [layer for layer in report.layers if not layer.passed]
    if broken:
        parts.append(section("Breaches", bullets(f"{la.tensor}, {la.mode}: {la.verdict}" for la in broken)))
    parts.append(Text(total(report), style="bold"))
    return spaced(parts)


def _left_out(source: Source) -> list[tuple[str, list[str]]]:
    """What an oracle computed in part, and what it did not: tensors of one reason in one line."""
    sections = []
    for title, tensors in (("Compared in part", source.partly), ("Not compared", source.not_compared)):
        by_reason: dict[str, list[str]] = {}
        for name, reason in tensors.items():
            by_reason.setdefault(reason, []).append(name)
        sections.append((title, [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]))
    return sections


def mode_table(mode: str, layers: list[LayerReport]) -> Table:
    """Elements, mismatches, largest difference, first index, distance to a tie and verdict of each tensor."""
    table = plain_table(
        TITLES[mode],
        [("\ntensor", "wrap"), ("\nelements", "right"), ("mismatching\ncodes", "right"), ("rate at\n95 %", "right"),
         ("max\n|delta|", "right"), ("first\nat", "right"), ("from a tie\nsteps", "right"), ("\nverdict", "left")],
    )  # fmt: skip
    for layer in layers:
        table.add_row(
            layer.tensor, f"{layer.elements:,}", f"{layer.mismatches:,}" if layer.is_code else DASH, _rate(layer),
            f"{layer.max_delta:.0f}" if layer.is_code else f"{layer.max_delta:.1e}",
            DASH if layer.first_index is None else ",".join(map(str, layer.first_index)),
            DASH if layer.tie_distance is None else f"{layer.tie_distance:.2g}", _verdict(layer),
            style="" if layer.passed else "bold",
        )  # fmt: skip
    return table


def analog_report(report: AnalogReport, facts: Mapping[str, str]) -> Group:
    """What `hwsim validate --analog` prints, for 100 columns; `facts` are paragraphs that come first."""
    parts: list[RenderableType] = [facts_grid(facts)]
    for mode in dict.fromkeys(layer.mode for layer in report.layers):
        parts.append(deviation_table(mode, [layer for layer in report.layers if layer.mode == mode]))
    parts.append(Text("Deviation: rms(analog - digital) / rms(digital) of a chip. Nothing is judged.", style="bold"))
    return spaced(parts)


ANALOG_TITLES = {
    "free-running": "Free-running: every layer reads what the chip computed before it",
    "teacher-forced": "Teacher-forced: every layer and every recurrent step reads the digital network",
}


def deviation_table(mode: str, layers: list[LayerDeviation]) -> Table:
    """Mean, standard deviation, least and greatest deviation over chips of each tensor."""
    columns = [("\ntensor", "wrap"), ("\nelements", "right"), ("deviation\nmean", "right"),
               ("spread\nover chips", "right"), ("\nleast", "right"), ("\ngreatest", "right")]  # fmt: skip
    table = plain_table(ANALOG_TITLES[mode], columns)
    for layer in layers:
        figures = (layer.mean, layer.spread, min(layer.relative_rms), max(layer.relative_rms))
        shown = (DASH if value is None or value != value else f"{100 * value:.2f} %" for value in figures)
        table.add_row(layer.tensor, f"{layer.elements:,}", *shown)
    return table


def total(report: Report) -> str:
    """`Passed: 0 of n codes, < 3/n at 95 %`; of two modes a line each, because they are of the same codes."""
    modes = list(dict.fromkeys(layer.mode for layer in report.layers))
    lines = []
    for mode in modes:
        part = Report(report.tier, tuple(layer for layer in report.layers if layer.mode == mode))
        bound = f", < {3 / part.elements:.1e} at 95 %" if part.elements and not part.mismatches else ""
        named = f", {mode}" if len(modes) > 1 else ""
        count = f"{part.mismatches:,} of {plural(part.elements, 'code')}{bound}"
        lines.append(f"{'Passed' if part.passed else 'FAILED'}{named}: {count}")
    return "\n".join(lines)


EXACT_ABOVE_BITS = 32


def semantics_text(semantics: Semantics) -> str:
    """`rapid: a 16-bit accumulator that saturates, cleared every 64 products`, and how sums become codes."""
    overflow = "wraps" if semantics.overflow == "wrap" else "saturates"
    chunk = f", cleared every {semantics.accumulator_chunk} products" if semantics.accumulator_chunk else ""
    text = f"{semantics.name}: a {semantics.accumulator_bits}-bit accumulator that {overflow}{chunk}"
    if semantics.accumulator_bits > EXACT_ABOVE_BITS:
        text = f"{semantics.name}: exact sums"
    if semantics.bias == "integer":
        rule = semantics.requantize.replace("_", ", ").replace("fixed", "fixed point")
        ties = semantics.ties.replace("_", " ")
        text += f"; products with a grid have integer biases and one multiplier ({rule}, ties {ties})"
    return text


def _rate(layer: LayerReport) -> str:
    """The rule of three for a rate that was never seen, otherwise what was seen."""
    if not layer.is_code or not layer.elements:
        return DASH
    return f"{layer.mismatches / layer.elements:.1e}" if layer.mismatches else f"< {3 / layer.elements:.1e}"


def _verdict(layer: LayerReport) -> str:
    if not layer.is_code:
        return "reals"
    if not layer.mismatches:
        return "equal"
    if not layer.passed:
        return "BROKEN"
    return "in budget" if layer.verdict.startswith("within budget") else "differs"
