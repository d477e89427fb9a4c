"""What was understood of an extracted model: its layers, totals, what was folded, merged or assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group

from hwsim.extract import ExtractedModel
from hwsim.extract.graph.facts import NodeFacts, elementwise_counts, graph_macs, node_facts
from hwsim.report.layout import bullets, facts_grid, plain_table, section, spaced
from hwsim.report.units import DASH, plural, significant

NUMBER = re.compile(r"(?<![A-Za-z])\d+")


def extraction_report(model: ExtractedModel, execution: Mapping[str, str] | None = None) -> Group:
    """The table that `hwsim extract` and `hwsim show` print; equal layers of a stack are one row.

    `execution`: what is said of the integer execution of components.
    """
    decode = model.decode
    search = f"{decode.algorithm}, beam {decode.beam}, {decode.labels_per_second:g} labels a second"
    rows = {
        "Model": f"{model.name}: {', '.join(model.graphs)}",
        "Input": f"{plural(model.frames, 'frame')} of {1e3 * model.frame_period_s:g} ms,"
        f" {model.encoder_frames(model.frames)} after the encoder",
        "Decoding": search if model.transduces else "none, an encoder alone",
        "Digest": model.digest,
    }
    parts = [facts_grid(rows), _layers(node_facts(model)), _totals(model)]
    if execution:
        parts.append(section("Execution", bullets(f"{name}: {text}" for name, text in execution.items())))
    for component, graph in model.graphs.items():
        if graph.notes:
            parts.append(section(f"Merged, folded or assumed in {component}", bullets(graph.notes)))
    parts.append(section("Assumed", bullets([f"decoding: {decode.source}"])))
    return spaced(parts)


def extraction_rows(model: ExtractedModel) -> list[dict[str, Any]]:
    """One row per node of the table, unmerged: what `--csv` writes."""
    return [
        {"component": row.component, "layer": row.layer, "operation": row.operation,
         "output": "×".join(map(str, row.output)), "parameters": row.parameters, "macs": row.macs,
         "weights": row.weight_format, "activations": row.input_format, "out": row.output_format}
        for row in node_facts(model)
    ]  # fmt: skip


def _layers(facts: Sequence[NodeFacts]) -> Any:
    table = plain_table(
        "Layers; equal rows of a stack are one, * stands for their numbers",
        [("layer", "wrap"), ("\noperation", "left"), ("\noutput", "left"), ("\n×", "right"), ("param.\nM", "right"),
         ("MACs\nM", "right"), ("weights, inputs,\noutput stored", "wrap")],
    )  # fmt: skip
    groups: dict[tuple[Any, ...], list[NodeFacts]] = {}
    for row in facts:
        key = (NUMBER.sub("*", _full(row)), row.operation, row.output, _formats(row))
        groups.setdefault(key, []).append(row)
    for (name, operation, output, formats), rows in groups.items():
        parameters, macs = (sum(getattr(row, part) for row in rows) for part in ("parameters", "macs"))
        table.add_row(
            name if len(rows) > 1 else _full(rows[0]), operation, "×".join(str(n) for n in output if n > 1) or "1",
            str(len(rows)) if len(rows) > 1 else "", _millions(parameters),
            _millions(macs), formats,
        )  # fmt: skip
    return table


def _millions(count: int) -> str:
    """In millions; what is too small to matter is not written out."""
    return f"{significant(count / 1e6)}" if count >= 1e3 else "<0.001" if count else DASH


def _formats(row: NodeFacts) -> str:
    parts = [row.weight_format, row.input_format if row.macs else "", row.output_format]
    told = [part for part in parts if part]
    return told[0] if len(set(told)) == 1 else ", ".join(told)


def _full(row: NodeFacts) -> str:
    return row.layer if row.layer.partition(".")[0] == row.component else f"{row.component}.{row.layer}"


def _totals(model: ExtractedModel) -> Any:
    table = plain_table(
        "Totals",
        [("component", "left"), ("parameters", "right"), ("MACs", "right"), ("stored MB", "right"),
         ("constants folded", "right"), ("element-wise elements", "wrap")],
    )  # fmt: skip
    networks = model.networks
    for component, graph in model.graphs.items():
        counts = elementwise_counts(graph)
        table.add_row(
            component, f"{graph.parameters:,}", f"{graph_macs(graph):,}",
            f"{networks.totals(component).weight_bits / 8e6:.4g}", f"{sum(graph.folded.values()):,}",
            ", ".join(f"{name} {count:,}" for name, count in counts.most_common()),
        )  # fmt: skip
    total = sum(graph.parameters for graph in model.graphs.values())
    table.add_row("all", f"{total:,}", f"{sum(map(graph_macs, model.graphs.values())):,}",
                  f"{networks.totals().weight_bits / 8e6:.4g}", "", "")  # fmt: skip
    return table
