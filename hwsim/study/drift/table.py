"""The rows of a study of drift as a table: one row a condition, and their means over chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim import __version__
from hwsim.recognize.store import recognizer_file
from hwsim.study.drift.request import Condition, DriftRequest
from hwsim.study.drift.work import Row, key, key_of

if TYPE_CHECKING:
    import pandas as pd

DIGEST_LENGTH = 12
ANALOG, DIGITAL = "analog", "digital"


def drift_frame(request: DriftRequest, rows: Sequence[Row], hashes: Mapping[str, str]) -> pd.DataFrame:
    """One row for each condition: WER over its utterances, energy of its decodes, and what made it.

    `chip` (from 0), `t_s` and `compensated` are missing where a recognizer ran in digital. `energy_per_audio_second_j`
    is of the whole machine, `host_energy_per_audio_second_j` the part of its host. `sha256`: of the recognizer's file.
    """
    import pandas as pd

    by_key = {key_of(row): row for row in rows}
    frame = pd.DataFrame([
        _condition(request, each, [by_key[key(each, index)] for index in range(request.utterances)], hashes)
        for each in request.conditions
    ])  # fmt: skip
    return frame.astype({"chip": "Int64", "compensated": "boolean", "seed": "Int64"})


def _condition(request: DriftRequest, condition: Condition, rows: Sequence[Row], hashes: Mapping[str, str]) -> Row:
    on_chip = condition.chip is not None
    errors, words, audio_s, energy_j, host_j = (
        sum(row[name] for row in rows) for name in ("errors", "words", "audio_s", "energy_j", "host_j")
    )
    return {
        "training": condition.training, "precision": condition.precision, "reading": ANALOG if on_chip else DIGITAL,
        "chip": condition.chip, "t_s": condition.t_s if on_chip else None,
        "compensated": condition.compensated if on_chip else None, "utterances": len(rows), "words": words,
        "errors": errors, "wer": errors / words, "energy_per_audio_second_j": energy_j / audio_s,
        "host_energy_per_audio_second_j": host_j / audio_s, "arch": request.arch if on_chip else request.digital_arch,
        "noise": request.noise if on_chip else None, "seed": request.seed if on_chip else None, "split": request.split,
        "sha256": hashes[recognizer_file(condition.precision)][:DIGEST_LENGTH], "hwsim": __version__,
    }  # fmt: skip


def over_chips(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation, least and greatest WER over the chips of each training, compensation and time.

    The standard deviation of one chip is 0. Sorted by training in the order of the table, compensated first, then time.
    """
    analog = frame[frame["reading"] == ANALOG]
    grouped = analog.groupby(["training", "compensated", "t_s"], sort=False)
    found: Any = grouped.agg(
        chips=("chip", "size"), wer=("wer", "mean"), wer_deviation=("wer", "std"), wer_low=("wer", "min"),
        wer_high=("wer", "max"), energy_per_audio_second_j=("energy_per_audio_second_j", "mean"),
        host_energy_per_audio_second_j=("host_energy_per_audio_second_j", "mean"),
    )  # fmt: skip
    found["wer_deviation"] = found["wer_deviation"].fillna(0.0)
    result: pd.DataFrame = found.reset_index()
    return result
