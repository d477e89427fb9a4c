"""`hwsim validate`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.cli.options import choice, integer, output_files
from hwsim.cli.printing import say
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import Semantics, profile
from hwsim.report.files import write_json
from hwsim.report.units import plural
from hwsim.report.validation import analog_report, semantics_text, validation_report
from hwsim.validate import Report, Tier, compare
from hwsim.validate.compare import MODES
from hwsim.validate.files import read_reference
from hwsim.validate.models import ONNX, Model, bindings, read_model
from hwsim.validate.oracles import ORACLES, Oracle, Readable, against
from hwsim.validate.oracles.base import readable, with_rules
from hwsim.validate.report import TIERS

PASSED, BREACH = 0, 1


@dataclass(frozen=True, slots=True)
class Words:
    """The words of the command line."""

    model: str
    inputs: Path
    reference: Path | None = None
    against: str | None = None
    tier: str | None = None
    profile: str | None = None
    mode: str | None = None
    weights: Path | None = None
    precision: str | None = None
    bind: tuple[str, ...] = ()
    json: Path | None = None
    component: str | None = None
    analog: str | None = None
    chips: str | None = None
    seed: str | None = None


def run_validate(words: Words) -> int:
    """Compare, write what was asked for, print the report; 0 when it passed, 1 on a breach.

    The tier is the oracle's unless told otherwise, T0 without one, T1 against a file of codes.
    """
    files = output_files(json=words.json)
    _check(words)
    if words.analog is not None:
        return run_analog(words.analog, words, files)
    semantics = None if words.profile is None else profile(words.profile)
    oracle = None if words.against is None or _is_own_oracle(words) else against(words.against, words.profile)
    model = read_model(words.model, words.inputs, weights=words.weights, precision=words.precision, bind=words.bind,
                       semantics=semantics, component=words.component)  # fmt: skip
    if words.reference is not None:
        executable = model.executable if semantics is None else with_rules(model.executable, semantics)
        report = against_file(executable, model, words)
    else:
        reference: Oracle = model.oracle_of(words.against) or oracle or Readable(semantics)
        reference.given = model.codes
        report = compare(model.executable, reference, model.inputs, words.tier, words.mode)  # type: ignore[arg-type]
    if files:
        write_json(files["json"], document(report, model, words))
    say(validation_report(report, compared(report, model, words)))
    if files:
        say("", f"Wrote {files['json']}")
    return PASSED if report.passed else BREACH


def run_analog(text: str, words: Words, files: Mapping[str, Path]) -> int:
    """Run chips of analog tiles beside the digital network and print how far each layer is; nothing is judged."""
    from hwsim.validate.analog import compare_analog, parse_analog, settings_text

    settings, t_s = parse_analog(text)
    chips, seed = integer("--chips", words.chips), integer("--seed", words.seed)
    if chips is not None and chips < 1:
        raise HwsimError(f"--chips must be at least 1, got {chips}")
    if seed is not None and seed < 0:
        raise HwsimError(f"--seed must be 0 or more, got {seed}")
    model = read_model(words.model, words.inputs, weights=words.weights, precision=words.precision, bind=words.bind,
                       component=words.component)  # fmt: skip
    report = compare_analog(model.executable, model.inputs, settings, t_s, chips=1 if chips is None else chips,
                            seed=seed or 0, mode=words.mode)  # type: ignore[arg-type]  # fmt: skip
    trace = model.executable.trace
    facts = {"Model": f"{words.model}: {trace.name}, {plural(len(trace), 'operation')}",
             "Reference": "the same network without tiles",
             "Chips": f"{report.chips}, seed {report.seed}, {plural(report.tiles, 'tile')} each",
             "Tiles": settings_text(settings, t_s),
             **({"Assumed": "; ".join(model.notes)} if model.notes else {})}  # fmt: skip
    if files:
        write_json(files["json"], {**_made_of(words), "assumed": list(model.notes), **report.to_dict()})
    say(analog_report(report, facts))
    if files:
        say("", f"Wrote {files['json']}")
    return PASSED


def against_file(executable: Executable, model: Model, words: Words) -> Report:
    """The comparison with codes of a file; where they differ, with their distances to a tie."""
    assert words.reference is not None
    wanted = read_reference(executable, words.reference)
    tier: Tier = words.tier or "T1"  # type: ignore[assignment]
    report = compare(executable, wanted, model.inputs, tier, words.mode)  # type: ignore[arg-type]
    if not report.mismatches:
        return report
    reals = readable(executable, model.codes).unrounded(model.inputs, wanted)
    return compare(executable, wanted, model.inputs, tier, words.mode, reals=reals)  # type: ignore[arg-type]


def compared(report: Report, model: Model, words: Words) -> dict[str, str]:
    """The paragraphs that say what was compared with what."""
    executable, source = model.executable, report.source
    tensors = plural(sum(name not in executable.cells for name in executable.outputs), "tensor")
    trace = executable.trace
    return {
        "Model": f"{words.model}: {trace.name}, {plural(len(trace), 'operation')}, {tensors}",
        "Reference": str(words.reference) if source is None else source.text,
        "Profile": semantics_text(_semantics(report, model, words)),
        **({"Assumed": "; ".join(model.notes)} if model.notes else {}),
    }


def document(report: Report, model: Model, words: Words) -> dict[str, Any]:
    """The report as JSON values, with the hashes of the files that made it."""
    profile_name = _semantics(report, model, words).name
    return {**_made_of(words), "assumed": list(model.notes), "profile": profile_name, **report.to_dict()}


def _made_of(words: Words) -> dict[str, Any]:
    """The files with their hashes, and the options that change the network."""
    sources = {"model": Path(words.model), "inputs": words.inputs, "reference": words.reference,
               "weights": words.weights}  # fmt: skip
    made_of: dict[str, Any] = {name: _file(path) for name, path in sources.items() if path is not None}
    options: dict[str, Any] = {} if words.precision is None else {"precision": words.precision}
    return {**made_of, **options, **({"bind": bindings(words.bind)} if words.bind else {})}


def _file(path: Path) -> dict[str, str]:
    """A file and its hash; a network of the catalogue has a name only."""
    if not path.is_file():
        return {"name": str(path)}
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _semantics(report: Report, model: Model, words: Words) -> Semantics:
    if report.source is not None:
        return profile(report.source.profile)
    return model.executable.semantics if words.profile is None else profile(words.profile)


def _is_own_oracle(words: Words) -> bool:
    """Whether onnxruntime is to run an ONNX file as it stands."""
    return words.model.endswith(ONNX) and words.against == "onnxruntime"


def _check(words: Words) -> None:
    """Raises HwsimError for options that do not go together, before anything is read."""
    choice("--tier", words.tier, TIERS)
    choice("--mode", words.mode, (*MODES, "both"))
    choice("--against", words.against, ORACLES)
    if words.reference is not None and words.against is not None:
        raise HwsimError(f"--reference and --against must not both be given, got {words.reference} and {words.against}")
    if words.profile is not None:
        profile(words.profile)
    for name in ("reference", "against", "tier", "profile"):
        if words.analog is not None and getattr(words, name) is not None:
            raise HwsimError(f"--analog and --{name} must not both be given, got {words.analog} and "
                             f"{getattr(words, name)}")  # fmt: skip
    for name in ("chips", "seed"):
        if words.analog is None and getattr(words, name) is not None:
            raise HwsimError(f"--{name} must go with --analog, got {getattr(words, name)} alone")
