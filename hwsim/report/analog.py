"""What reports say of analog tiles: a paragraph beside the machine, and the table of `hwsim map`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from hwsim.arch import Architecture
from hwsim.cost.analog import TileBlock, tile_s
from hwsim.cost.mapping import AnalogMapping, MappedMatrix
from hwsim.report.layout import bullets, facts_grid, plain_table, section, spaced
from hwsim.report.units import percent, plural, si

if TYPE_CHECKING:
    from hwsim.simulation import Result


def tiles_text(result: Result) -> str | None:
    """`142 of 170 tiles, ...` for the report of a run; None for a machine without tiles."""
    mapping, own = result.run.mapping, result.run.stations
    if mapping is None:
        return None
    text = _summary(result.arch, mapping)
    if mapping.digital:
        text += f"; {plural(len(mapping.digital), 'matrix', 'matrices')} on the arrays"
    if result.run.trace.meta.get("frame_by_frame"):
        text += "; layers work side by side, frame by frame, and the search beside them"
    programming = result.arch.analog.programming if result.arch.analog else None
    if own is not None and own.writes and programming is not None:
        lasts = programming.endurance_writes.value // own.writes
        text += f"; shared tiles written {own.writes:,} times, which their devices endure for {lasts:,} utterances"
    return text


def describe_tiles(arch: Architecture) -> str | None:
    """Chips, tiles, and what they hold and reach in each mode; None for a machine without tiles."""
    analog = arch.analog
    if analog is None:
        return None
    modes = []
    for name, mode in analog.modes.items():
        block = TileBlock(mode.rows.value, mode.columns.value, mode)
        time_s, weights = tile_s(analog, block), mode.rows.value * mode.columns.value
        reached = f"{si(analog.tiles * weights, '').rstrip()} weights, {si(time_s, 's')} a product"
        rate = si(2 * analog.tiles * weights / time_s, "")
        modes.append(f"{name} {mode.rows.value} × {mode.columns.value} in a tile, {reached}, {rate}OPS on all tiles")
    tiles = f"{plural(analog.chips.value, 'chip')} of {analog.tiles_per_chip.value} tiles"
    return f"{tiles}; {'; '.join(modes)}; without room: {analog.placement.overflow}"


def mapping_report(arch: Architecture, workload: str, mapping: AnalogMapping) -> Group:
    """Where every weight matrix of a network lies: chip, tiles, mode, devices; and what stays digital."""
    assert arch.analog is not None
    parts: list[RenderableType] = [
        facts_grid({"Machine": arch.name, "Network": workload, "Tiles": _summary(arch, mapping),
                    "Chips": ", ".join(_chip(arch, mapping, chip) for chip in range(len(mapping.used)))}),
        _table(mapping),
    ]  # fmt: skip
    if mapping.digital:
        lines = [f"{name}, {weights:,} weights: {why}" for name, weights, why in mapping.digital]
        parts.append(section("On the arrays", bullets(lines)))
    return spaced(parts)


def _summary(arch: Architecture, mapping: AnalogMapping) -> str:
    assert arch.analog is not None
    on = f" on {plural(arch.analog.chips.value, 'chip')}" if arch.analog.chips.value > 1 else ""
    return (
        f"{mapping.tiles} of {arch.analog.tiles} tiles{on}, {100 * mapping.utilization:.1f} % of their weights used;"
        f" {mapping.weights:,} weights in {mapping.devices:,} devices"
    )


def _chip(arch: Architecture, mapping: AnalogMapping, chip: int) -> str:
    return f"{chip + 1}: {mapping.used[chip]} of {mapping.tiles_per_chip} tiles"


def _table(mapping: AnalogMapping) -> RenderableType:
    table = plain_table(
        "Matrices on tiles",
        [("\nmatrix", "left"), ("\nchip", "left"), ("\nmode", "left"), ("copies ×\nrows × columns", "right"),
         ("\ntiles", "right"), ("used\n%", "right"), ("\ndevices", "right")],
    )  # fmt: skip
    for matrix in mapping.matrices:
        block = matrix.block
        table.add_row(
            _name(matrix), _where(matrix), matrix.mode, _size(matrix), f"{block.row_tiles} × {block.column_tiles}",
            percent(block.utilization, 1), f"{block.devices:,}",
        )  # fmt: skip
    return table


def _name(matrix: MappedMatrix) -> str:
    name = matrix.name.removesuffix(".weight")
    return f"{name} + table" if matrix.folded >= 0 else name


def _where(matrix: MappedMatrix) -> str:
    """`4`, `4–6` for tiles of several chips, `shared` for those that are programmed."""
    first, last = matrix.chips[0][0] + 1, matrix.chips[-1][0] + 1
    return "shared" if matrix.shared else str(first) if first == last else f"{first}–{last}"


def _size(matrix: MappedMatrix) -> str:
    """`1024 × 4096`, `4 × 240 × 4096` in copies, `240 → 1024 × 4096` with expanded inputs."""
    block = matrix.block
    if matrix.expanded:
        return f"{matrix.inputs} → {block.rows} × {block.columns}"
    copies = f"{matrix.copies} × " if matrix.copies > 1 else ""
    return f"{copies}{matrix.inputs} × {block.columns}"
