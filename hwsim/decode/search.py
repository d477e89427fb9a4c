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
from hwsim.extract import AnyWorkload
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
    return settings


def _require_models(workload: AnyWorkload, settings: DecodeSettings) -> None:
    missing = [name for name in _MODELS[settings.lm] if name not in workload.language_models]
    if missing:
        has = ", ".join(workload.language_models) or "no language model"
        raise HwsimError(f"lm {settings.lm} must have {missing[0]} in workload {workload.name}, got {has}")


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

    `frames` counts encoder input frames; of an encoder alone the plan is not read. Raises HwsimError for a plan of
    more frames than the encoder gives.
    """
    _check_frames(frames)
    _require_models(workload, settings)
    encoder_frames = workload.encoder_frames(frames)
    if plan.frame.max(initial=0) >= encoder_frames:
        raise HwsimError(f"a plan must read frames below {encoder_frames}, got {plan.frame.max()}")
    audio_s = workload.audio_seconds(frames)
    b = TraceBuilder(workload.name, {"workload": workload.name, "frames": frames, "audio_s": audio_s})
    encoder_out = workload.emit_encoder(b, frames)
    if not workload.transduces:
        return b.build()
    rows = int(max(plan.joint_rows.max(), plan.prediction_rows.max(), plan.lm_rows.max(), 1))
    networks = workload.declare_search(b, encoder_out, encoder_frames, rows, _MODELS[settings.lm])
    if settings.hoisted_encoder_projection:
        networks.project_encoder(b, encoder_frames, hoisted=True)
    _emit_steps(b, settings, plan, networks)
    return b.build()


def _check_frames(frames: int) -> None:
    if isinstance(frames, bool) or not isinstance(frames, int):
        raise HwsimError(f"frames must be an integer, got {frames!r}")
    if frames < 1:
        raise HwsimError(f"frames must be at least 1, got {frames}")


def _emit_steps(b: TraceBuilder, settings: DecodeSettings, plan: DecodeSchedule, networks: StepNetworks) -> None:
    scores = b.tensor("search.scores", Role.STATE, (int(plan.joint_rows.max()), networks.labels))
    choice = b.tensor("search.choice", Role.STATE, (1,))

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
        _emit_scores(b, settings, networks, scores, m)

    calls: list[tuple[Callable[[Rows], None], Counts, bool]] = [
        (prediction, plan.prediction_rows, settings.batched_prediction),
        *((lambda m, lm=lm: lm.step(b, m, choice), plan.lm_rows, settings.batched_lm)
          for lm in networks.language_models),
        (combine, plan.joint_rows, settings.batched_joint),
    ]  # fmt: skip
    with b.loop(plan.steps):
        chosen = [Operand(choice, 0, 1)]
        decide = [Operand(scores, 0, 1)]
        b.op(Kind.HOST, "search.control", decide, chosen, m=plan.joint_rows, k=plan.hypotheses)
        for emit, rows, batched in calls:
            for m in _batches(rows, batched):
                before = b.last
                b.op(Kind.LAUNCH, "search.launch", chosen, chosen, m=np.minimum(m, 1), after=[before])
                emit(m)


def _emit_scores(b: TraceBuilder, settings: DecodeSettings, networks: StepNetworks, scores: int, m: Rows) -> None:
    """Fuse LM scores, pick the best label on the device (greedy), and send what the host must sort."""
    labels, source = networks.labels, networks.logits
    if networks.language_models:
        fused = [
            Operand(source, labels),
            *(Operand(*model.scores) for model in networks.language_models if model.scores),
        ]
        b.op(Kind.ELEMENTWISE, "search.fusion", fused, [Operand(scores, labels)], m=m,
             k=len(networks.language_models), n=labels, function=Function.FUSE_SCORES)  # fmt: skip
        source = scores
    if settings.algorithm == "greedy":
        b.op(Kind.TOPK, "search.best", [Operand(source, labels)], [Operand(scores, 2)], m=m, n=labels)
        b.op(Kind.SEND, "search.scores", [Operand(scores, 2)], [Operand(scores, 2)], m=m, n=2)
    else:
        b.op(Kind.SEND, "search.scores", [Operand(source, labels)], [Operand(scores, labels)], m=m, n=labels)


def _batches(rows: Counts, batched: bool) -> list[Counts]:
    """Rows of each call of a network at each step: one batch, or as many single rows as the busiest step has."""
    if batched:
        return [rows]
    return [np.minimum(np.maximum(rows - call, 0), 1) for call in range(int(rows.max()))]
