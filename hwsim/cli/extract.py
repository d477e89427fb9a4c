"""`hwsim extract`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hwsim.cli.options import choice, integer, output_files, positive
from hwsim.cli.printing import say
from hwsim.errors import HwsimError
from hwsim.extract.files import Speech, from_onnx
from hwsim.extract.graph.store import SUFFIX, save_model
from hwsim.report.extraction import extraction_report, extraction_rows
from hwsim.report.files import written
from hwsim.validate.extracted import executable_parts
from hwsim.validate.models import bindings

DECODERS = ("greedy", "alsd", "tsd", "maes")


@dataclass(frozen=True, slots=True)
class Words:
    """What the user typed."""

    encoder: Path
    prediction: Path | None
    joint: Path | None
    decoder_joint: Path | None
    lm: Path | None
    source_lm: Path | None
    bind: tuple[str, ...]
    out: Path
    frames: str | None
    frame_period_ms: str | None
    labels_per_second: str | None
    decoder: str | None
    beam: str | None
    allow_float: bool
    csv: Path | None


def run_extract(words: Words) -> None:
    """Read the files, write the model, print what was understood."""
    files = output_files(out=words.out, csv=words.csv)
    if words.out.suffix != SUFFIX:
        raise HwsimError(f"--out must end in {SUFFIX}, got {words.out}")
    bind = bindings(words.bind)
    model = from_onnx(
        words.encoder, prediction=words.prediction, joint=words.joint, decoder_joint=words.decoder_joint,
        lm=words.lm, source_lm=words.source_lm,
        bind=bind, name=words.out.stem, speech=_speech(words), allow_float=words.allow_float,
    )  # fmt: skip
    given = {"encoder": words.encoder, "prediction": words.prediction, "joint": words.joint,
             "external_lm": words.lm, "source_lm": words.source_lm}  # fmt: skip
    parts, said = executable_parts(model, {name: path for name, path in given.items() if path is not None}, bind)
    report = extraction_report(model, said)
    save_model(model, words.out, parts)
    if words.csv is not None:
        import pandas as pd

        with written(words.csv) as file:
            pd.DataFrame(extraction_rows(model)).to_csv(file, index=False)
    say(report, "", *(f"Wrote {path}" for path in files.values()))


def _speech(words: Words) -> Speech:
    told: dict[str, object] = {}
    if words.decoder is not None:
        choice("--decoder", words.decoder, DECODERS)
        told["algorithm"] = words.decoder
    told |= {"beam": 1} if words.decoder == "greedy" else {}
    for name, option, text in (("beam", "--beam", words.beam), ("frames", "--frames", words.frames)):
        if text is not None:
            told[name] = integer(option, text)
    if words.frame_period_ms is not None:
        told["frame_period_s"] = positive("--frame-period-ms", words.frame_period_ms) / 1e3
    if words.labels_per_second is not None:
        told["labels_per_second"] = positive("--labels-per-second", words.labels_per_second)
    if {"frame_period_s", "labels_per_second", "algorithm"} <= told.keys():
        told["source"] = "the options of hwsim extract"
    return replace(Speech(), **told)  # type: ignore[arg-type]
