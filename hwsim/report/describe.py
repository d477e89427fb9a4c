"""What `hwsim show` prints of an architecture, a network or a precision policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from rich.console import Group, RenderableType

from hwsim.arch import Architecture, Origin
from hwsim.cost.peak import peak_efficiency_ops_per_j
from hwsim.extract import Workload, parameter_counts
from hwsim.extract.spec import CtcSpec, HeadSpec, HybridSpec, LanguageModelSpec, LstmStackSpec
from hwsim.numerics import NumberFormat, PrecisionPolicy
from hwsim.numerics.formats import BASES
from hwsim.numerics.policy import LayerPrecision
from hwsim.report.analog import describe_tiles
from hwsim.report.layout import assumption_text, facts_grid, plain_table, section, spaced
from hwsim.report.sentences import FUSIONS, SEARCHES, encoder_texts, geometry, memory_text, transformer_text
from hwsim.report.speech import describe_speech
from hwsim.report.units import DASH, number, plural, si, signed, significant

ACOUSTIC = "acoustic"


def describe_arch(arch: Architecture) -> Group:
    """A machine: geometry, formats with their peaks, and every number with its origin."""
    host, links = arch.host, arch.interconnect
    calls = "one persistent kernel" if host.persistent_kernel else "one call for each network of a step"
    rows = {
        "Architecture": f"{arch.name}: {' '.join(arch.description.split())}",
        "Cores": geometry(arch),
        "Memory": memory_text(arch),
        "Host": f"{si(host.per_step_s.value, 's')} a step, {si(host.per_hypothesis_s.value, 's')} a hypothesis;"
        f" {calls}; states of hypotheses on the {host.state_cache};"
        f" link {si(host.link_bandwidth_bytes_per_s.value, 'B/s')}",
        "Digest": arch.digest[:12],
    }
    tiles = describe_tiles(arch)
    if tiles:
        rows["Tiles"] = tiles
    if links:
        rows["Cores"] += f"; links of {links.bytes_per_cycle.value:g} bytes per cycle"
    parts: list[RenderableType] = [facts_grid(rows), _formats(arch)]
    if arch.array.fallback:
        listed = ", ".join(f"{name} runs as {native}" for name, native in arch.array.fallback.items())
        parts.append(facts_grid({"Fallbacks": listed}))
    parts += [_origins("Published or derived", arch.sources()), _origins("Assumed", arch.assumptions())]
    return spaced(parts)


def describe_workload(workload: Workload) -> Group:
    """A network: parameters counted and published, its parts with their sources, how it is decoded, its speech."""
    spec = workload.definition
    tolerance = spec.published.relative_tolerance
    agreement = f"within {100 * tolerance:g} %" if tolerance else "exactly"
    table = plain_table(
        "Parameters",
        [("component", "left"), ("counted", "right"), ("published", "right"), ("difference", "right"), ("", "left")],
    )
    for name, count in parameter_counts(workload).items():
        printed = spec.published.parameters.get(name)
        difference = f"{signed(100 * (count / printed - 1), 1)} %" if printed else ""
        table.add_row(name, f"{count:,}", f"{printed:,.0f}" if printed else DASH, difference, _note(workload, name))
    rows = {
        "Workload": f"{workload.name}: {' '.join(spec.description.split())}",
        "Decoding": _decoding(workload),
        "Published": spec.published.source + (f"; counts agree {agreement}" if spec.published.parameters else ""),
        "Digest": workload.digest,
    }
    parts: list[RenderableType] = [facts_grid(rows), table, section("Parts", assumption_text(_part_lines(workload)))]
    if workload.speech is not None:
        parts.append(describe_speech(workload.speech))
    return spaced(parts)


def _note(workload: Workload, name: str) -> str:
    """What a count of several components is."""
    whole = "encoder + prediction + joint" if workload.transduces else "encoder + head"
    return {ACOUSTIC: whole, "acoustic_training": "with the branch that only training has"}.get(name, "")


def _decoding(workload: Workload) -> str:
    decode, own = workload.decode, workload.definition
    length_s = workload.audio_seconds(decode.frames)
    if isinstance(own, LanguageModelSpec):
        scored = f"scores of {plural(own.decode.n_best, 'hypothesis', 'hypotheses')}"
        return f"none, {scored} of {plural(decode.frames, 'word')} ({length_s:.4g} s of speech)"
    frames = f"{plural(decode.frames, 'frame')} of {1e3 * workload.frame_period_s:g} ms ({length_s:.4g} s)"
    if isinstance(own, HybridSpec):
        after = "no rescoring"
        if own.rescoring_lm is not None:
            count = plural(own.decode.n_best, "hypothesis", "hypotheses")
            after = f"{count} rescored, {own.decode.words_per_second:g} words per second"
        return f"in a graph on the host, which is not timed; {frames}; {after}"
    if not workload.transduces:
        return f"none, scores of a CTC head; {frames}"
    beam = "" if decode.algorithm == "greedy" else f", beam {decode.beam}"
    models = "density-ratio" if len(workload.language_models) > 1 else "shallow" if workload.language_models else "none"
    return (
        f"{SEARCHES[decode.algorithm]}{beam}, {FUSIONS[models]};"
        f" {frames}, {decode.labels_per_second:g} labels per second"
        + ("; two passes, both of them searched alike" if len(workload.passes) > 1 else "")
    )


def describe_policy(policy: PrecisionPolicy, texts: Mapping[str, str | None]) -> Group:
    """A policy: its rules in the order in which they apply. `texts` are description, source and assumption."""
    rows = {"Policy": f"{policy.name}: {texts['description']}" if texts.get("description") else policy.name}
    rows |= {name.capitalize(): text for name in ("source", "assumption") if (text := texts.get(name))}
    names = [field.name for field in fields(LayerPrecision)]
    table = plain_table(
        "Formats; a later rule overrides an earlier one",
        [("layers", "left"), *((name, "left") for name in names), ("", "left")],
    )
    table.add_row("every layer", *(str(getattr(policy.default, name)) for name in names), "")
    for glob, rule in policy.rules:
        formats = [str(value) if (value := getattr(rule, name)) else "" for name in names]
        table.add_row(glob, *formats, "may match none" if rule.optional else "")
    return spaced([facts_grid({**rows, "Digest": policy.digest[:12]}), table])


def _formats(arch: Architecture) -> RenderableType:
    points = list(arch.operating_points)
    efficiency = [(f"TOPS/W\n{point}", "right") for point in points]
    table = plain_table(
        "Formats",
        [("\nformat", "left"), ("bits", "right"), ("array\nrows × columns", "right"), ("lanes ×\nMACs", "right"),
         ("MACs/cycle\nmachine", "right"), (f"peak TOPS\n{arch.operating_point}", "right"), *efficiency,
         ("energy\npJ/MAC", "right")],
    )  # fmt: skip
    machines = [arch.model_copy(update={"operating_point": point}) for point in points]
    for name, shape in arch.array.formats.items():
        bits = str(NumberFormat(name).code_bits) if name in BASES else DASH
        table.add_row(
            name, bits, f"{shape.rows.value} × {shape.columns.value}",
            f"{shape.lanes.value} × {shape.macs_per_lane.value}",
            f"{arch.macs_per_cycle(name):,}", significant(arch.peak_ops_per_s(name) / 1e12, 4),
            *(significant(peak_efficiency_ops_per_j(machine, name) / 1e12) for machine in machines),
            significant(shape.energy_pj_per_mac.value),
        )  # fmt: skip
    return table


def _origins(title: str, origins: list[Origin]) -> Group:
    lines = [f"{origin.path} = {number(origin.value)}: {origin.text}" for origin in origins]
    return section(f"{title} ({plural(len(lines), 'number')})", assumption_text(lines, listed=len(lines)))


def _part_lines(workload: Workload) -> list[str]:
    """`encoder = 6 bidirectional LSTM layers of 640 cells ...: source` for each part, and the decoding's source."""
    spec, decode = workload.definition, f"decode: {workload.decode.source}"
    if isinstance(spec, LanguageModelSpec):
        return [f"lm = {transformer_text(spec.model)}: {spec.model.source}", decode]
    lines = [f"{name} = {text}: {source}" for name, text, source in encoder_texts(spec.encoder)]
    if isinstance(spec, CtcSpec | HybridSpec):
        lines.append(f"head = {_head_text(spec.head)}: {spec.head.source}")
        model = spec.rescoring_lm if isinstance(spec, HybridSpec) else None
        if model is not None:
            lines.append(f"rescoring_lm = {transformer_text(model)}: {model.source}")
        return [*lines, decode]
    joint = spec.joint
    stacks = [("prediction", spec.prediction), *spec.language_models.items()]
    lines += [f"{name} = {_stack_text(stack)}: {stack.source}" for name, stack in stacks]
    combined = {"add": "sum", "multiply": "product", "concatenate": "concatenation"}[joint.combine]
    text = f"{combined} of two projections to {joint.size}, {joint.activation}, {joint.outputs} outputs"
    return [*lines, f"joint = {text}: {joint.source}", decode]


def _head_text(head: HeadSpec) -> str:
    return f"linear layer to {head.outputs} outputs, {'log-softmax' if head.log_softmax else 'no softmax'}"


def _stack_text(stack: LstmStackSpec) -> str:
    text = (
        f"embedding {stack.vocabulary} × {stack.embedding}, {plural(stack.layers, 'LSTM layer')} of {stack.cells} cells"
    )
    if stack.dense_inputs and stack.layers > 1:
        text += ", each reads the embedding"
    return text + (f", {stack.outputs} outputs" if stack.outputs else "")
