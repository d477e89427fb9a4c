"""The paragraphs at the head of a result: machine, network, decode."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.extract import Workload
from hwsim.extract.spec import HybridSpec, LanguageModelSpec
from hwsim.report import facts
from hwsim.report.sentences import FUSIONS, SEARCHES, geometry, memory_text, peaks
from hwsim.report.units import plural, si
from hwsim.simulation import Result


def machine_text(result: Result, versus: Result | None = None, changed: Mapping[str, str] | None = None) -> str:
    """Cores, clock, arrays, peak per format in use, memories; and what the user changed."""
    arch = result.arch
    uses = [use for run in (result, versus) if run for use in facts.formats_in_use(run)]
    formats = dict.fromkeys(use.computed for use in uses)
    peak = [f"peak {peaks(arch, formats)}"] if formats else []
    sentences = [f"{arch.name}: {geometry(arch)}", *peak, memory_text(arch)]
    if changed:
        listed = ", ".join(f"{path} = {value}" for path, value in changed.items())
        sentences.append(f"changed: {listed}")
    return "; ".join(sentences)


def network_text(result: Result, versus: Result | None = None) -> str:
    """Parameters by component, precision, size, and the formats of its products."""
    parts = [c for c in result.components.values() if c.parameters]
    counts = ", ".join(f"{c.name} {si(c.parameters, '').rstrip()}" for c in parts)
    bits, total = sum(c.weight_bits for c in parts), sum(c.parameters for c in parts)
    on_tiles = sum(c.tile_weights for c in parts)
    precision = f"{result.policy.name} versus {versus.policy.name}" if versus else result.policy.name
    macs = sum(c.macs for c in result.components.values())
    products = [f"{100 * use.macs / macs:.3g} % {use.requested}" for use in facts.formats_in_use(result)]
    if on_tiles:
        digital = sum(use.macs for use in facts.formats_in_use(result))
        products.insert(0, f"{100 * (1 - digital / macs):.4g} % on tiles")
    size = f"{bits / 8e6:,.1f} MB"
    size += f", {bits / (total - on_tiles):.2f} bits each" if total > on_tiles else ""
    size += " of what is not on tiles" if on_tiles else ""
    return (
        f"{result.workload.name} at {precision}: {si(total, '').rstrip()} parameters ({counts});"
        f" {size}; {si(macs, 'MAC')}s, {', '.join(products)}"
    )


def decode_text(result: Result) -> str:
    """Search, beam, language models, steps, and rows of each network."""
    frames = result.workload.encoder_frames(result.frames)
    unit = "word" if isinstance(_definition(result), LanguageModelSpec) else "frame"
    length = f"{plural(result.frames, unit)} = {result.audio_s:.4g} s of audio"
    length += f", {frames} after the encoder" if frames != result.frames else ""
    if not result.workload.transduces:
        return f"none, {_scored(result)}; {length}"
    totals, settings = facts.decode_totals(result), result.settings
    beam = "" if settings.algorithm == "greedy" else f", beam {settings.beam}"
    rows = [f"prediction network {totals.prediction_rows:,}", f"joint {totals.joint_rows:,}"]
    if settings.language_models:
        rows.insert(1, f"{'each LM' if settings.language_models > 1 else 'LM'} {totals.lm_rows:,}")
    return (
        f"{SEARCHES[settings.algorithm]}{beam}, {FUSIONS[settings.lm]}; {length};"
        f" {plural(totals.steps, 'step')}; rows: {', '.join(rows)}{_passes(result)}"
    )


def _passes(result: Result) -> str:
    """Which of two passes is decoded; nothing where there is one."""
    if len(result.workload.passes) < 2:
        return ""
    return "; in each of two passes" if result.settings.passes == "both" else f"; {result.settings.passes} pass alone"


def _definition(result: Result) -> object:
    """What the file of a network says; none of an extracted model."""
    return result.workload.definition if isinstance(result.workload, Workload) else None


def _n_best(result: Result) -> int:
    own = result.workload.n_best if isinstance(result.workload, Workload) else None
    return (own or 0) if result.settings.n_best is None else result.settings.n_best


def _rescored(result: Result) -> str:
    n_best = _n_best(result)
    count = plural(n_best, "hypothesis", "hypotheses")
    after = f"{count} rescored by the language model" if n_best else "no rescoring"
    return (
        f"{result.workload.labels:,} acoustic scores for each encoder frame, sent to the host, whose search in a"
        f" decoding graph is not timed; {after}"
    )


def _scored(result: Result) -> str:
    """What is computed in place of a search: scores of labels, or nothing."""
    definition = _definition(result)
    if isinstance(definition, HybridSpec):
        return _rescored(result)
    if isinstance(definition, LanguageModelSpec):
        return f"scores of {plural(_n_best(result), 'hypothesis', 'hypotheses')}"
    if "head" not in result.components:
        return "an encoder alone"
    return f"{result.workload.labels:,} scores of a CTC head for each encoder frame"
