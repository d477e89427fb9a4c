"""A speech set of noise and recognizers of random weights, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwsim.extract import load_workload
from hwsim.recognize import save_recognizer
from hwsim.speech.dataset import FileEntry, Manifest, Split, save_split, write_manifest
from hwsim.study import StudyRequest
from tests.recognize.networks import both

UTTERANCES = 5


def speech(folder: Path) -> Path:
    """Five utterances of 20 to 36 frames of noise."""
    spec = load_workload("digits").spec.speech
    assert spec is not None
    rng = np.random.default_rng(0)
    frames, labels = rng.integers(20, 37, UTTERANCES), rng.integers(1, 5, UTTERANCES)
    offsets = [np.concatenate([[0], np.cumsum(counts)]).astype(np.int64) for counts in (frames, labels)]
    spoken = rng.integers(1, len(spec.words) + 1, labels.sum())
    transcripts = [
        " ".join(spec.words[i - 1] for i in spoken[a:b]) for a, b in zip(offsets[1], offsets[1][1:], strict=False)
    ]
    features = rng.standard_normal((frames.sum(), 120)).astype(np.float16)
    each = {"voices": np.array(["en"] * UTTERANCES), "noises": np.array(["none"] * UTTERANCES),
            "snr_db": np.full(UTTERANCES, np.inf), "samples": frames * 480}  # fmt: skip
    split = Split("test_mild", features, offsets[0], spoken.astype(np.int64), offsets[1],
                  np.array(transcripts), **each, sample_rate_hz=16000)  # fmt: skip
    folder.mkdir(parents=True)
    entries = {"test_mild": save_split(split, folder / "test_mild.npz")}
    text = FileEntry(sha256="", utterances=1, words=1)
    write_manifest(Manifest(
        workload="digits", seed=0, utterances=UTTERANCES, settings_sha256="0" * 64, synthesizer="none",
        feature_library="none", words=tuple(spec.words), features=spec.features, mean=(0.0,) * 40,
        deviation=(1.0,) * 40,
        splits=entries, text=text), folder)  # fmt: skip
    return folder


def recognizers(folder: Path, precisions: tuple[str, ...] = ("int8", "int4")) -> Path:
    """One file a precision."""
    folder.mkdir(parents=True)
    for precision in precisions:
        save_recognizer(both(precision).recognizer, folder / f"{precision}.recognizer")
    return folder


def request(root: Path, **changes: object) -> StudyRequest:
    """Two precisions, beams 1 and 2, with and without language models, on two machines."""
    asked: dict[str, object] = {
        "workload": "digits", "archs": ("rapid_4core", "edge_npu"), "precisions": ("int8", "int4"), "beams": (1, 2),
        "lms": ("none", "density-ratio"), "utterances": UTTERANCES, "data": root / "speech",
        "recognizers": root / "recognizers",
    }  # fmt: skip
    return StudyRequest(**{**asked, **changes})  # type: ignore[arg-type]
