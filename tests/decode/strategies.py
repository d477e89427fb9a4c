"""Searches and utterances that fit each other: no search is asked for more labels than it can emit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from hwsim.decode import DecodeSettings, SpeechStatistics

SWITCHES = (
    "prediction_cache",
    "lm_cache",
    "batched_prediction",
    "batched_joint",
    "batched_lm",
    "hoisted_encoder_projection",
    "hoisted_prediction_projection",
)


@st.composite
def searches(draw: st.DrawFn, algorithm: str | None = None) -> tuple[DecodeSettings, SpeechStatistics]:
    """A search without masked rows and an utterance whose labels it can emit."""
    algorithm = algorithm or draw(st.sampled_from(["greedy", "alsd", "tsd", "maes"]))
    frames = draw(st.integers(1, 200))
    settings = DecodeSettings(
        algorithm=algorithm,  # type: ignore[arg-type]
        beam=1 if algorithm == "greedy" else draw(st.integers(1, 40)),
        u_max=draw(st.none() | st.integers(0, 2 * frames)),
        u_max_ratio=draw(st.floats(0.1, 2.0)),
        expansions_per_frame=draw(st.integers(2, 5)),
        maes_steps=draw(st.integers(1, 3)),
        maes_alpha=draw(st.integers(0, 1)),
        maes_beta=draw(st.integers(0, 3)),
        max_symbols_per_frame=draw(st.sampled_from([None, 1])),
        lm=draw(st.sampled_from(["none", "shallow", "density-ratio"])),
        **{name: draw(st.booleans()) for name in SWITCHES},
    )
    limit = settings.label_limit(frames)
    most = 2 * frames if limit is None else min(limit, 2 * frames)
    return settings, draw(utterances(frames, most))


@st.composite
def utterances(draw: st.DrawFn, frames: int, most_labels: int) -> SpeechStatistics:
    """Statistics of `frames` frames over the whole range that was simulated or measured."""
    return SpeechStatistics(
        frames=frames,
        labels=draw(st.integers(0, most_labels) | st.floats(0, most_labels)),
        vocabulary=draw(st.integers(1, 5000)),
        alsd_live_share=draw(st.floats(0.5, 1.0)),
        alsd_new_prefix_rate=draw(st.floats(0.0, 0.2)),
        tsd_new_share=draw(st.floats(0.0, 0.6)),
        tsd_survival_share=draw(st.floats(0.0, 0.6)),
        maes_rival_rate=draw(st.floats(0.0, 2.0)),
        maes_doubling_rate=draw(st.floats(0.0, 2.0)),
        maes_expansions_per_label=draw(st.floats(0.0, 3.0)),
        maes_repeat_rate=draw(st.floats(0.0, 1.0)),
        maes_join_share=draw(st.floats(0.0, 1.0)),
        maes_new_share=draw(st.floats(0.0, 1.0)),
    )


def masked(settings: DecodeSettings) -> DecodeSettings:
    """The same search with all rows computed."""
    return replace(settings, masked_rows=True)
