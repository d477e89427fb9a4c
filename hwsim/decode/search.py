"""A search as operations: the schedule of rows becomes the networks, copies and host control of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache

import numpy as np

from hwsim.config import parse_scalar
from hwsim.decode.rows import Counts, DecodeSchedule
from hwsim.decode.settings import DecodeSettings, SpeechStatistics
from hwsim.decode.statistics import schedule
from hwsim.errors import HwsimError, nearest
from hwsim.extract import AnyWorkload, Workload
from hwsim.extract.cascade import named
from hwsim.extract.interface import StepNetworks
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand, Rows

PREFIX = "decode."
_MODELS = {"none": (), "shallow": ("external_lm",), "density-ratio": ("source_lm", "external_lm")}


def split_changes(changes: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Divide `--set` pairs into those of the architecture and those of `decode.*`, without that prefix."""
    decode = {path.removeprefix(PREFIX): text for path, text in changes.items() if path.startswith(PREFIX)}
    return {path: text for path, text in changes.items() if not path.startswith(PREFIX)}, decode


def default_settings(workload: AnyWorkload, *, beam: int | None = None, algorithm: str | None = None,
                     lm: str | None = None, changes: Mapping[str, str] | None = None) -> DecodeSettings:  # fmt: skip
    """The workload's own way of decoding, with the parts that the user named replaced.

    `changes` are fields of DecodeSettings and YAML values, as `--set decode.lm_cache=true` gives them. Greedy search
    has a beam of 1; a workload without language models is decoded without them. Raises HwsimError.
    """
    defaults = workload.decode
    refuse_search(workload, beam, algorithm, lm)
    algorithm = algorithm or defaults.algorithm
    if lm is None:
        lm = "density-ratio" if set(_MODELS["density-ratio"]) <= set(workload.language_models) else "none"
    if beam is None:
        beam = 1 if algorithm == "greedy" else defaults.beam
    settings = DecodeSettings(
        algorithm=algorithm, beam=beam, lm=lm, u_max_ratio=defaults.u_max_ratio, lm_cache=defaults.lm_cache  # type: ignore[arg-type]
    )  # fmt: skip
    known = [field.name for field in fields(DecodeSettings)]
    for name in changes or {}:
        if name not in known:
            raise HwsimError(f"--set {PREFIX}{name}: no key '{name}' in decode{nearest(name, known)}")
    settings = replace(settings, **{name: parse_scalar(text) for name, text in (changes or {}).items()})
    _require_models(workload, settings)
    _check_passes(workload, settings)
    _check_n_best(workload, settings)
    return settings


def _scored(workload: AnyWorkload) -> int | None:
    """Hypotheses that a language model scores; None for a network whose search is in the trace, or that has none."""
    return workload.n_best if isinstance(workload, Workload) else None


def refuse_search(workload: AnyWorkload, beam: int | None, algorithm: str | None, lm: str | None) -> None:
    """Raises HwsimError for options of a search where it is in a decoding graph, which is outside."""
    if _scored(workload) is None:
        return
    alone = "lm" in workload.networks.components
    why = "it has no search" if alone else "its search in a decoding graph is outside"
    for name, value, nothing in (("beam", beam, 1), ("decoder", algorithm, "greedy"), ("lm", lm, "none")):
        if value not in (None, nothing):
            raise HwsimError(f"{name} must be left out for {workload.name}, got {value}: {why}; "
                             f"--set {PREFIX}n_best is how many hypotheses are rescored")  # fmt: skip


def _check_n_best(workload: AnyWorkload, settings: DecodeSettings) -> None:
    own = _scored(workload)
    if settings.n_best is None:
        return
    if own is None:
        said = f"n_best must be left out for {workload.name}, got {settings.n_best}"
        raise HwsimError(f"{said}: no hypotheses are rescored")
    if own == 0 and settings.n_best:
        raise HwsimError(f"n_best must be 0 for {workload.name}, which has no rescoring_lm, got {settings.n_best}")
    if settings.n_best == 0 and "lm" in workload.networks.components:
        raise HwsimError(f"n_best must be at least 1 for {workload.name}, a language model alone, got 0")


def _require_models(workload: AnyWorkload, settings: DecodeSettings) -> None:
    missing = [name for name in _MODELS[settings.lm] if name not in workload.language_models]
    if missing:
        has = ", ".join(workload.language_models) or "no language model"
        raise HwsimError(f"lm {settings.lm} must have {missing[0]} in workload {workload.name}, got {has}")


def _check_passes(workload: AnyWorkload, settings: DecodeSettings) -> None:
    if settings.passes != "both" and len(workload.passes) < 2:
        raise HwsimError(f"passes must be both for {workload.name}, which has one, got {settings.passes}")


def speech_statistics(workload: AnyWorkload, frames: int) -> SpeechStatistics:
    """T and U of an utterance of `frames` encoder input frames at the workload's speaking rate."""
    labels = workload.decode.labels_per_second * workload.audio_seconds(frames)
    return SpeechStatistics(workload.encoder_frames(frames), labels, vocabulary=max(workload.labels - 1, 1))


@lru_cache(maxsize=64)
def utterance_trace(workload: AnyWorkload, settings: DecodeSettings, frames: int) -> Trace:
    """The operations of one utterance: encoder, hoisted projections, then every step of the search.

    `frames` counts encoder input frames; the rows of each step follow from statistics of speech. Formats are fp32
    until `Trace.with_precision` sets them.
    """
    _check_frames(frames)
    return decode_trace(workload, settings, frames, schedule(settings, speech_statistics(workload, frames)))


def decode_trace(workload: AnyWorkload, settings: DecodeSettings, frames: int, plan: DecodeSchedule) -> Trace:
    """The operations of one utterance whose search evaluated the rows of `plan`, such as one that was decoded.

    With two passes both searches evaluate these rows; what the second adds to the encoder follows the first search.
    `frames` counts encoder input frames; of an encoder alone the plan is not read. Raises HwsimError for a plan of
    more frames than the encoder gives.
    """
    _check_frames(frames)
    _require_models(workload, settings)
    _check_passes(workload, settings)
    encoder_frames = workload.encoder_frames(frames)
    if plan.frame.max(initial=0) >= encoder_frames:
        raise HwsimError(f"a plan must read frames below {encoder_frames}, got {plan.frame.max()}")
    audio_s = workload.audio_seconds(frames)
    b = TraceBuilder(workload.name, {"workload": workload.name, "frames": frames, "audio_s": audio_s})
    if not workload.transduces and isinstance(workload, Workload):
        workload.emit_utterance(b, frames, settings.n_best)
        return b.build()
    if not workload.transduces:
        workload.emit_encoder(b, frames)
        return b.build()
    rows = int(max(plan.joint_rows.max(), plan.prediction_rows.max(), plan.lm_rows.max(), 1))
    for part, encoder_out in workload.emit_passes(b, frames):
        if not part or settings.passes in ("both", part):
            models = _MODELS[settings.lm] if part == workload.passes[-1] else ()
            networks = workload.declare_search(b, encoder_out, encoder_frames, rows, models, part)
            if settings.hoisted_encoder_projection:
                networks.project_encoder(b, encoder_frames, hoisted=True)
            _emit_steps(b, settings, plan, networks, named("search", part))
        if part and part == settings.passes:
            break
    return b.build()


def _check_frames(frames: int) -> None:
    if isinstance(frames, bool) or not isinstance(frames, int):
        raise HwsimError(f"frames must be an integer, got {frames!r}")
    if frames < 1:
        raise HwsimError(f"frames must be at least 1, got {frames}")


def search_models(settings: DecodeSettings) -> tuple[str, ...]:
    """Components of the language models that a search evaluates."""
    return _MODELS[settings.lm]


def _emit_steps(b: TraceBuilder, settings: DecodeSettings, plan: DecodeSchedule, networks: StepNetworks,
                search: str) -> None:  # fmt: skip
    scores, choice = declare_scores(b, plan, networks, search)
    with b.loop(plan.steps):
        emit_step(b, settings, plan, networks, search, scores, choice)


def declare_scores(b: TraceBuilder, plan: DecodeSchedule, networks: StepNetworks, search: str) -> tuple[int, int]:
    """Declare what the search decides on: scores of the rows of a step, and its choice of hypotheses."""
    scores = b.tensor(f"{search}.scores", Role.STATE, (int(plan.joint_rows.max()), networks.labels))
    return scores, b.tensor(f"{search}.choice", Role.STATE, (1,))


def emit_step(b: TraceBuilder, settings: DecodeSettings, plan: DecodeSchedule, networks: StepNetworks, search: str,
              scores: int, choice: int) -> None:  # fmt: skip
    """Add one step of a search inside a loop of as many iterations as the plan has entries."""

    def prediction(m: Rows) -> None:
        networks.prediction.step(b, m, choice)
        if settings.hoisted_prediction_projection:
            networks.project_prediction(b, m, hoisted=True)

    def combine(m: Rows) -> None:
        if not settings.hoisted_encoder_projection:
            networks.project_encoder(b, m, hoisted=False, needs=[choice])
        if not settings.hoisted_prediction_projection:
            networks.project_prediction(b, m, hoisted=False)
        networks.join(b, m, [choice])
        _emit_scores(b, settings, networks, search, scores, m)

    calls: list[tuple[Callable[[Rows], None], Counts, bool]] = [
        (prediction, plan.prediction_rows, settings.batched_prediction),
        *((lambda m, lm=lm: lm.step(b, m, choice), plan.lm_rows, settings.batched_lm)
          for lm in networks.language_models),
        (combine, plan.joint_rows, settings.batched_joint),
    ]  # fmt: skip
    chosen = [Operand(choice, 0, 1)]
    decide = [Operand(scores, 0, 1)]
    b.op(Kind.HOST, f"{search}.control", decide, chosen, m=plan.joint_rows, k=plan.hypotheses)
    for emit, rows, batched in calls:
        for m in _batches(rows, batched):
            before = b.last
            b.op(Kind.LAUNCH, f"{search}.launch", chosen, chosen, m=np.minimum(m, 1), after=[before])
            emit(m)


def _emit_scores(b: TraceBuilder, settings: DecodeSettings, networks: StepNetworks, search: str, scores: int,
                 m: Rows) -> None:  # fmt: skip
    """Fuse LM scores, pick the best label on the device (greedy), and send what the host must sort."""
    labels, source = networks.labels, networks.logits
    if networks.language_models:
        fused = [
            Operand(source, labels),
            *(Operand(*model.scores) for model in networks.language_models if model.scores),
        ]
        b.op(Kind.ELEMENTWISE, f"{search}.fusion", fused, [Operand(scores, labels)], m=m,
             k=len(networks.language_models), n=labels, function=Function.FUSE_SCORES)  # fmt: skip
        source = scores
    if settings.algorithm == "greedy":
        b.op(Kind.TOPK, f"{search}.best", [Operand(source, labels)], [Operand(scores, 2)], m=m, n=labels)
        b.op(Kind.SEND, f"{search}.scores", [Operand(scores, 2)], [Operand(scores, 2)], m=m, n=2)
    else:
        b.op(Kind.SEND, f"{search}.scores", [Operand(source, labels)], [Operand(scores, labels)], m=m, n=labels)


def _batches(rows: Counts, batched: bool) -> list[Counts]:
    """Rows of each call of a network at each step: one batch, or as many single rows as the busiest step has."""
    if batched:
        return [rows]
    return [np.minimum(np.maximum(rows - call, 0), 1) for call in range(int(rows.max()))]
