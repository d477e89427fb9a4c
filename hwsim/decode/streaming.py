"""One utterance with its search beside the encoder: a frame is searched while later ones are encoded."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from hwsim.decode.rows import DecodeSchedule
from hwsim.decode.search import declare_scores, emit_step, search_models
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.extract import AnyWorkload
from hwsim.extract.frames import FrameEncoder, frame_encoder
from hwsim.trace import Trace, TraceBuilder

SEARCH = "search"


def stream_trace(workload: AnyWorkload, settings: DecodeSettings, frames: int, plan: DecodeSchedule) -> Trace:
    """The operations of `decode_trace`, frame by frame: one loop over encoder frames, with the steps that read each.

    Steps of the last frame beyond those that other frames have follow in a loop of their own, as the tail of an
    alignment-length search does. Raises HwsimError for an encoder that cannot be emitted so.
    """
    spec = frame_encoder(workload)
    if spec is None:
        raise HwsimError(f"{workload.name}: must have unidirectional LSTM layers to be emitted frame by frame")
    audio_s = workload.audio_seconds(frames)
    meta = {"workload": workload.name, "frames": frames, "audio_s": audio_s, "frame_by_frame": True}
    b = TraceBuilder(workload.name, meta)
    encoder = FrameEncoder.declare(b, spec, frames)
    rows = int(max(plan.joint_rows.max(), plan.prediction_rows.max(), plan.lm_rows.max(), 1))
    networks = workload.declare_search(b, encoder.out, 1, rows, search_models(settings))
    within, tail = _by_frame(plan, encoder.iterations)
    scores, choice = declare_scores(b, plan, networks, SEARCH)
    with b.loop(encoder.iterations):
        encoder.step(b)
        if settings.hoisted_encoder_projection:
            networks.project_encoder(b, 1, hoisted=True)
        for part in within:
            emit_step(b, settings, part, networks, SEARCH, scores, choice)
    if tail is not None:
        with b.loop(tail.steps):
            emit_step(b, settings, tail, networks, SEARCH, scores, choice)
    return b.build()


def _by_frame(plan: DecodeSchedule, frames: int) -> tuple[list[DecodeSchedule], DecodeSchedule | None]:
    """The k-th step of every frame as a schedule over frames, for each k, and what the last frame has beyond."""
    number = np.bincount(plan.frame, minlength=frames)
    first = np.cumsum(number) - number
    most = max(int(number[:-1].max(initial=0)), min(int(number[-1]), 1))
    within = [_chosen(plan, np.where(number > k, first + k, -1)) for k in range(most)]
    beyond = np.arange(first[-1] + most, plan.steps)
    return within, _chosen(plan, beyond) if len(beyond) else None


def _chosen(plan: DecodeSchedule, step: np.ndarray) -> DecodeSchedule:
    """Steps of a plan by index; one with nothing to do for -1."""
    columns = {}
    for field in fields(plan):
        column = getattr(plan, field.name)
        columns[field.name] = np.where(step >= 0, column[np.maximum(step, 0)], 0)
    return DecodeSchedule(**columns)
