"""What `hwsim show` says of the speech of a network."""

from __future__ import annotations

import hwsim
from hwsim.report.describe import describe_workload
from hwsim.report.speech import describe_speech
from tests.report.conftest import Text
from tests.speech.fakes import small


def test_digits_shows_its_words_splits_and_noise(text: Text) -> None:
    spec = hwsim.load_workload("digits").spec.speech
    assert spec is not None
    shown = text(describe_workload(hwsim.load_workload("digits")))
    flat = " ".join(shown.split())
    assert max(map(len, shown.split("\n"))) <= 100
    assert "…" not in shown
    assert f"23: {' '.join(spec.words)}" in flat
    assert "40 training, 4 dev, 8 test" in flat
    assert "40 log-mel bins of 16 kHz audio, 120 a frame of 30 ms" in flat
    rows = {line.split()[0]: line.split() for line in shown.split("\n") if line.startswith(tuple(spec.splits))}
    assert set(rows) == set(spec.splits)
    assert rows["train"][1:] == ["4,000", "training", "training", "3", "to", "30", "white,", "pink,", "babble,", "30",
                                 "%", "none"]  # fmt: skip
    assert rows["test_clean"][1:] == ["200", "target", "test", "–", "–"]
    assert rows["test_strong"][4:6] == ["3", "test_clean"]
    sources = [*(g.source for g in spec.grammars.values()), spec.voices_source, spec.babble.source]
    assert all(" ".join(source.split()) in flat for source in sources)


def test_every_split_is_a_row(text: Text) -> None:
    shown = text(describe_speech(small()))
    assert [line.split()[0] for line in shown.split("\n") if " digits " in line and line[0] in "tcn"][-3:] == [
        "train", "clean", "noisy"
    ]  # fmt: skip


def test_a_network_without_speech_shows_none(text: Text) -> None:
    assert "\nSpeech" not in text(describe_workload(hwsim.load_workload("rnnt_mlperf")))
