"""Utterances decoded here or by another toolkit: what was said, what was found, what the search evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch import load_arch
from hwsim.decode.rows import SearchRows, scheduled
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError, nearest
from hwsim.extract import Workload, load_network
from hwsim.numerics import PrecisionPolicy
from hwsim.recognize.errors import word_errors
from hwsim.recognize.recognizer import Transcript
from hwsim.simulation import simulate
from hwsim.study.table import Point, point

Counts = npt.NDArray[np.int64]

KEYS = ("reference", "hypothesis", "frames", "steps", "totals")
COUNTED = ("joint", "new", "extended", "extended_new", "candidates")


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """One utterance. Without `rows` its search is timed by statistics of speech."""

    reference: str
    hypothesis: str
    frames: int
    """Frames of features that the encoder reads."""
    rows: SearchRows | None = None

    @classmethod
    def of(cls, transcript: Transcript, reference: str) -> Decode:
        """What a recognizer of `hwsim.recognize` decoded."""
        return cls(reference, transcript.words, transcript.frames, transcript.decoded.rows)


def search_rows(*, joint: npt.ArrayLike, new: npt.ArrayLike, frame: npt.ArrayLike | None = None,
                extended: npt.ArrayLike | None = None, extended_new: npt.ArrayLike | None = None,
                candidates: npt.ArrayLike | None = None) -> SearchRows:  # fmt: skip
    """The rows of a search at each step, from counts (steps,) that another decoder wrote down.

    - `joint`: rows of the joint, at least 1. `new`: those whose label prefix was never evaluated before.
    - `frame`: the newest encoder frame that the step reads, from 0, never falling; by default one step a frame.
    - `extended`: rows that an LM must score, by default all; `extended_new`: those that it has not seen, by default
      `new`, at most `extended`. `candidates`: scores that the host sorts, by default one a row.

    Raises HwsimError, naming the column and the step, for counts that no search can have.
    """
    rows = _column("joint", joint, None)
    steps, fresh = len(rows), _column("new", new, len(rows))
    extends = rows if extended is None else _column("extended", extended, steps)
    unseen = np.minimum(fresh, extends) if extended_new is None else _column("extended_new", extended_new, steps)
    frames = np.arange(steps) if frame is None else _column("frame", frame, steps)
    sorted_ = rows if candidates is None else _column("candidates", candidates, steps)
    _refuse(rows < 1, "joint", rows, "at least 1")
    for name, part, other, whole in (("new", fresh, "joint", rows), ("extended", extends, "joint", rows),
                                     ("extended_new", unseen, "extended", extends)):  # fmt: skip
        _refuse(part > whole, name, part, f"at most {other}")
    _refuse(np.diff(frames, prepend=0) < 0, "frame", frames, "at least that of the step before")
    return SearchRows(frames, rows, fresh, extends, unseen, sorted_)


def spread_rows(frames: int, steps: int, **totals: int) -> SearchRows:
    """Rows of a search of which only sums are known, spread evenly over its steps and `frames` encoder frames.

    `totals`: the columns of `search_rows` but frame. Their sums are kept exactly. Raises HwsimError as `search_rows`.
    """
    for name, value, least in (("frames", frames, 1), ("steps", steps, 1), *((n, v, 0) for n, v in totals.items())):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise HwsimError(f"{name} must be an integer, at least {least}, got {value!r}")
    _known(totals, COUNTED, "totals")
    at = np.arange(steps + 1, dtype=np.int64)
    return search_rows(frame=at[:-1] * frames // steps,
                       **{name: np.diff(at * total // steps) for name, total in totals.items()})  # fmt: skip


def read_decodes(path: str | Path, workload: Workload | str | Path) -> list[Decode]:
    """Decodes of another toolkit from a file of JSON lines, one utterance a line.

    Keys: `reference`, `hypothesis`, `frames` (of features), and `steps`, an object of lists as `search_rows` takes
    them, or `totals`, an object of integers with `steps` and what `spread_rows` takes, or neither. Raises HwsimError
    with the line for anything else, and for steps beyond the encoder's frames of the workload.
    """
    network = workload if isinstance(workload, Workload) else load_network(workload)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "other bytes than UTF-8"
        raise HwsimError(f"{path}: must be a file of JSON lines, got {str(reason).lower()}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_decode(json.loads(line), network))
        except json.JSONDecodeError as error:
            raise HwsimError(f"{path}:{number}: must be an object of JSON, got {error.msg.lower()}") from None
        except HwsimError as error:
            raise HwsimError(f"{path}:{number}: {error}") from None
    if not found:
        raise HwsimError(f"{path}: must hold at least one utterance, got none")
    return found


def measure(decodes: Sequence[Decode], arch: str | Path, workload: Workload | str | Path,
            precision: PrecisionPolicy | str | Path, settings: DecodeSettings) -> Point:  # fmt: skip
    """One row of a study: word error rate with its interval, and time and energy of these decodes on a machine.

    `settings`: the search as it was run, with its caches and batches. Raises HwsimError for no decode at all, and as
    `simulate`.
    """
    if not decodes:
        raise HwsimError("decodes must hold at least one utterance, got none")
    machine, network = load_arch(arch), workload if isinstance(workload, Workload) else load_network(workload)
    errors = word_errors([one.reference for one in decodes], [one.hypothesis for one in decodes])
    results = [
        simulate(machine, network, precision, frames=one.frames, settings=settings,
                 plan=None if one.rows is None else scheduled(settings, one.rows))
        for one in decodes
    ]  # fmt: skip
    return point(
        machine.name, results[0].policy.name, settings.beam, settings.lm, errors, [r.audio_s for r in results],
        [r.latency_s for r in results], [r.energy_j for r in results],
    )  # fmt: skip


def _decode(values: Any, network: Workload) -> Decode:
    if not isinstance(values, dict):
        raise HwsimError(f"must be an object of JSON, got {type(values).__name__}")
    _known(values, KEYS, "key")
    for key, kind in (("reference", str), ("hypothesis", str), ("frames", int)):
        if type(values.get(key)) is not kind:
            what = "text" if kind is str else "an integer"
            raise HwsimError(f"{key} must be {what}, got {values.get(key)!r}")
    if values["frames"] < 1:
        raise HwsimError(f"frames must be at least 1, got {values['frames']}")
    encoded = network.encoder_frames(values["frames"])
    if "steps" in values and "totals" in values:
        raise HwsimError("an utterance must have steps or totals, got both")
    rows = None
    for key in ("steps", "totals"):
        if key in values and not isinstance(values[key], dict):
            raise HwsimError(f"{key} must be an object, got {values[key]!r}")
    if "steps" in values:
        _known(values["steps"], ("frame", *COUNTED), "column")
        rows = search_rows(**_required(values["steps"]))
    elif "totals" in values:
        totals = dict(_required(values["totals"]))
        rows = spread_rows(encoded, totals.pop("steps", None), **totals)
    if rows is not None and rows.frame[-1] >= encoded:
        raise HwsimError(f"frame must be below {encoded}, the encoder's frames, got {rows.frame[-1]}")
    return Decode(values["reference"], values["hypothesis"], values["frames"], rows)


def _required(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("joint", "new"):
        if name not in columns:
            raise HwsimError(f"a search must have the rows of {name}, got none")
    return columns


def _column(name: str, values: npt.ArrayLike, steps: int | None) -> Counts:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise HwsimError(f"{name} must be integers (steps,), got {array.dtype} of shape {array.shape}")
    if steps is not None and len(array) != steps:
        raise HwsimError(f"{name} must have {steps} steps, as joint, got {len(array)}")
    _refuse(array < 0, name, array, "at least 0")
    return array.astype(np.int64)


def _refuse(wrong: npt.NDArray[np.bool_], name: str, values: npt.NDArray[Any], rule: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        raise HwsimError(f"{name} of step {at} must be {rule}, got {values[at]}")


def _known(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known and not (what == "totals" and name == "steps"):
            raise HwsimError(f"unknown {what} '{name}'{nearest(name, known)}")
