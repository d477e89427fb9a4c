"""The report of a simulated utterance, alone or versus another one."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table

from hwsim.report import facts
from hwsim.report.analog import tiles_text
from hwsim.report.layout import assumption_text, bullets, facts_grid, plain_table, section, spaced
from hwsim.report.paragraphs import decode_text, machine_text, network_text
from hwsim.report.units import DASH, column_decimals, fixed, percent, plural, si, significant
from hwsim.simulation import ComponentResult, Result

CAUSE_NAMES = {"dram": "DRAM", "mac": "MACs", "link": "host link", "vector": "vector unit",
               "analog": "analog tiles"}  # fmt: skip


def result_report(result: Result, versus: Result | None = None, changed: Mapping[str, str] | None = None) -> Group:
    """Everything that `hwsim simulate` prints, for 100 columns.

    `versus` is the same utterance at another precision; `changed` are settings of the user that the machine
    paragraph repeats.
    """
    parts: list[RenderableType] = [
        paragraphs(result, versus, changed or {}),
        component_table(result, versus),
        summary(result, versus),
        weight_table(result),
    ]
    notes = note_lines(result, versus)
    if notes:
        parts.append(section("Notes", notes))
    parts.append(section("Assumptions", assumption_text(result.assumptions)))
    return spaced(parts)


def paragraphs(result: Result, versus: Result | None, changed: Mapping[str, str]) -> Table:
    """Machine, network and decode, one paragraph each."""
    tiles = tiles_text(result)
    return facts_grid(
        {
            "Machine": machine_text(result, versus, changed),
            **({"Tiles": tiles} if tiles else {}),
            "Network": network_text(result, versus),
            "Decode": decode_text(result),
        }
    )


def component_table(result: Result, versus: Result | None = None) -> Table:
    """Latency, share, speed-up, energy, achieved rate, utilization, DRAM bytes and bound of each component."""
    total = facts.total(result)
    milliseconds = column_decimals(1e3 * max(side.latency_s for side in (result, versus) if side))
    millijoules, megabytes = column_decimals(1e3 * total.energy_j), column_decimals(total.dram_bytes / 1e6)
    compared = [("versus\nms", "right"), ("speed-up\n×", "right")] if versus else []
    table = plain_table(
        f"Components at {result.policy.name}{f' versus {versus.policy.name}' if versus else ''}",
        [("\ncomponent", "left"), ("latency\nms", "right"), ("share\n%", "right"), *compared, ("energy\nmJ", "right"),
         ("achieved\nTOPS", "right"), ("util.\n%", "right"), ("DRAM\nMB", "right"), ("\nbound by", "wrap")],
    )  # fmt: skip
    for c in (*result.components.values(), total):
        if c is total:
            table.add_section()
        computes = c.achieved_ops_per_s > 0
        table.add_row(
            c.name, fixed(1e3 * c.latency_s, milliseconds), percent(facts.share(c, result), 1),
            *(_compared(c.name, result, versus, milliseconds) if versus else ()), fixed(1e3 * c.energy_j, millijoules),
            significant(c.achieved_ops_per_s / 1e12) if computes else DASH,
            percent(c.utilization, 1) if computes else DASH,
            fixed(c.dram_bytes / 1e6, megabytes) if c.dram_bytes else DASH,
            _bound(c), style="bold" if c is total else "",
        )  # fmt: skip
    return table


def _compared(name: str, result: Result, versus: Result, decimals: int) -> tuple[str, str]:
    """Latency of the other result, and speed-up."""
    other = versus.components.get(name) if name != facts.TOTAL else versus
    speedup = facts.visible_speedup(name, result, versus)
    latency = DASH if other is None else fixed(1e3 * other.latency_s, decimals)
    return latency, DASH if speedup is None else significant(speedup)


def summary(result: Result, versus: Result | None = None) -> Table:
    """Latency, RTF, energy, where time and energy go, compression."""
    rows = {
        "Latency": _latency_text(result, versus),
        "Time goes to": _shares(facts.total(result).cycles_by_cause, CAUSE_NAMES),
        "Energy": _energy_text(result, versus),
        "Energy goes to": _shares(dict(result.energy_by_part_j), CAUSE_NAMES),
        "Compression": f"{significant(result.compression)} times smaller than FP32",
    }
    if versus:
        rows["Compression"] += f" ({versus.policy.name}: {significant(versus.compression)})"
    return facts_grid(rows)


def weight_table(result: Result) -> Table:
    """Size of the weights by component, what stays on chip, what streams from DRAM."""
    homes = facts.weight_homes(result)
    reads = column_decimals(max(home.dram_bytes for home in homes) / 1e6)
    tiles = any(home.tile_weights for home in homes)
    table = plain_table(
        "Weights",
        [("\ncomponent", "left"), ("parameters\nM", "right"), *([("on tiles\nM", "right")] if tiles else []),
         ("bits\neach", "right"), ("stored\nMB", "right"),
         ("compression\n×", "right"), ("kept on chip\nMB", "right"), ("from DRAM\nMB", "right"),
         ("read\ntimes", "right")],
    )  # fmt: skip
    for home in homes:
        table.add_row(
            home.component, significant(home.parameters / 1e6),
            *([significant(home.tile_weights / 1e6) if home.tile_weights else DASH] if tiles else []),
            f"{home.stored_bits / home.digital_parameters:.2f}" if home.digital_parameters else DASH,
            fixed(home.stored_bytes / 1e6, 2),
            significant(32 * home.digital_parameters / home.stored_bits) if home.stored_bits else DASH,
            fixed(home.kept_bytes / 1e6, 2) if home.kept_bytes else DASH, fixed(home.dram_bytes / 1e6, reads),
            significant(home.reads),
        )  # fmt: skip
    return table


def note_lines(result: Result, versus: Result | None = None) -> str:
    """What the reader must know beside the numbers: fallbacks, missing room, dashes."""
    notes = facts.fallback_notes(result)
    if versus:
        notes += [note for note in facts.fallback_notes(versus) if note not in notes]
    memory = result.arch.memory
    if not memory.weight_residency:
        notes.append(f"{result.arch.name} keeps no weights on chip from one recurrent step to the next")
    elif not result.arch.host.persistent_kernel:
        notes.append(
            "weights stay on chip only over the steps of the encoder: each network of a decode step is a call that"
            " finds empty scratchpads (host.persistent_kernel is false)"
        )
    lost = facts.spilled(result)
    if lost.tensors:
        notes.append(
            f"no room on chip for {plural(len(lost.tensors), 'tensor')}, {lost.size_bytes / 1e6:,.1f} MB, above all"
            f" {lost.tensors[0]}; that costs up to {lost.traffic_bytes / 1e6:,.0f} MB of DRAM traffic"
        )
    hidden = [c.name for c in result.components.values() if facts.share(c, result) < facts.HIDDEN_SHARE]
    if hidden:
        notes.append(
            f"{', '.join(hidden)}: under {100 * facts.HIDDEN_SHARE:g} % of the latency, short or hidden behind others"
        )
    return bullets(notes)


def _bound(component: ComponentResult) -> str:
    """The cause that takes the most time, and how much of it: `DRAM 98 %`."""
    if not component.cycles:
        return "hidden"
    by_cause = component.cycles_by_cause
    cause = max(by_cause, key=lambda name: by_cause[name])
    return f"{CAUSE_NAMES.get(cause, cause)} {percent(by_cause[cause], component.cycles, 0)} %"


def _shares(parts: Mapping[str, float], names: Mapping[str, str]) -> str:
    """`DRAM 57 %, MACs 28 %, ...`, without what is under half a percent."""
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    shown = [(name, value / total) for name, value in ordered if total and value / total >= 0.005]
    return ", ".join(f"{names.get(name, name)} {100 * part:.0f} %" for name, part in shown)


def _latency_text(result: Result, versus: Result | None) -> str:
    text = f"{si(result.latency_s, 's', 4)} for {result.audio_s:.4g} s of audio, RTF {significant(result.rtf)}"
    if versus:
        text += (
            f"; {versus.policy.name}: {si(versus.latency_s, 's', 4)}, RTF {significant(versus.rtf)};"
            f" {_ratio(versus.latency_s / result.latency_s, 'faster', 'slower')}"
        )
    return text


def _energy_text(result: Result, versus: Result | None) -> str:
    per_second = si(result.energy_per_audio_second_j, "J")
    text = f"{si(result.energy_j, 'J', 4)}, {per_second} per second of audio"
    if versus:
        other = si(versus.energy_per_audio_second_j, "J")
        times = _ratio(versus.energy_j / result.energy_j, "less", "more")
        text += f"; {versus.policy.name}: {si(versus.energy_j, 'J', 4)}, {other}; {times}"
    return text


def _ratio(ratio: float, above: str, below: str) -> str:
    """`3.88 times faster`, `1.20 times slower`."""
    return f"{significant(ratio)} times {above}" if ratio >= 1 else f"{significant(1 / ratio)} times {below}"
