"""The speech that a network is trained and tested on, as `hwsim show` prints it."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from hwsim.report.layout import assumption_text, facts_grid, plain_table, section, spaced
from hwsim.report.units import DASH, plural
from hwsim.speech.spec import SpeechSpec, SplitSpec


def describe_speech(spec: SpeechSpec) -> Group:
    """Words, voices and features of a speech set, its splits, and the source of each part."""
    features = spec.features
    frame_ms = 1e3 * features.stack * features.shift_s
    rows = {
        "Words": f"{len(spec.words)}: {' '.join(spec.words)}",
        "Voices": ", ".join(f"{len(voices)} {name}" for name, voices in spec.voices.items()),
        "Features": f"{features.bins} log-mel bins of {features.sample_rate_hz / 1e3:g} kHz audio, "
        f"{features.width} a frame of {frame_ms:g} ms",
        "Text": f"{plural(spec.text.sentences, 'sentence')} of the grammar {spec.text.grammar}",
        "Seed": f"{spec.seed}",
    }
    return spaced([section("Speech", facts_grid(rows)), _splits(spec), _sources(spec)])


def _splits(spec: SpeechSpec) -> Table:
    table = plain_table(
        "Splits",
        [("split", "left"), ("utterances", "right"), ("grammar", "left"), ("voices", "left"), ("SNR, dB", "right"),
         ("speech of", "left"), ("noise", "wrap")],
    )  # fmt: skip
    for name, split in spec.splits.items():
        kinds, snr_db = _noise(split)
        spoken = split.speech_of or ""
        table.add_row(name, f"{split.utterances:,}", split.grammar, split.voices, snr_db, spoken, kinds)
    return table


def _noise(split: SplitSpec) -> tuple[str, str]:
    """Kinds of noise with the share without any, and the range of its level."""
    if split.noise is None:
        return DASH, DASH
    clean = f", {100 * split.noise.clean_share:.0f} % none" if split.noise.clean_share else ""
    low, high = split.noise.snr_db
    return ", ".join(split.noise.kinds) + clean, f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _sources(spec: SpeechSpec) -> Group:
    lines = [f"grammar {name}: {grammar.source}" for name, grammar in spec.grammars.items()]
    lines += [f"text: {spec.text.source}", f"voices: {spec.voices_source}"]
    lines += [f"synthesis: {spec.synthesis.source}", f"babble: {spec.babble.source}"]
    lines.append(f"features: {spec.features.source}")
    lines += [f"split {name}: {split.source}" for name, split in spec.splits.items()]
    return section("Speech comes from", assumption_text(lines, listed=len(lines)))
