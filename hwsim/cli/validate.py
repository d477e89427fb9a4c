"""`hwsim validate`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.cli.options import choice, output_files
from hwsim.cli.printing import say
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import Semantics, profile
from hwsim.report.files import write_json
from hwsim.report.units import plural
from hwsim.report.validation import semantics_text, validation_report
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


def run_validate(words: Words) -> int:
    """Compare, write what was asked for, print the report; 0 when it passed, 1 on a breach.

    The tier is the oracle's unless told otherwise, T0 without one, T1 against a file of codes.
    """
    files = output_files(json=words.json)
    _check(words)
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
    sources = {"model": Path(words.model), "inputs": words.inputs, "reference": words.reference,
               "weights": words.weights}  # fmt: skip
    made_of: dict[str, Any] = {name: _file(path) for name, path in sources.items() if path is not None}
    options: dict[str, Any] = {} if words.precision is None else {"precision": words.precision}
    options |= {"bind": bindings(words.bind)} if words.bind else {}
    profile_name = _semantics(report, model, words).name
    return {**made_of, **options, "assumed": list(model.notes), "profile": profile_name, **report.to_dict()}


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
