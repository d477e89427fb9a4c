"""The rows of a study on disk, one line of JSON an utterance: a killed study goes on with the first that is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from hwsim.errors import HwsimError
from hwsim.study.request import Search

ROWS, HEADER = "utterances.jsonl", "study.json"
Row = dict[str, Any]
Key = tuple[str, int, str, int]


def key_of(row: Row) -> Key:
    """What a row is about: precision, beam, language model, number of the utterance."""
    return row["precision"], row["beam"], row["lm"], row["utterance"]


class RowStore:
    """The folder of a study. Raises HwsimError when it cannot be written, or belongs to another study."""

    def __init__(self, folder: Path, digest: str, about: dict[str, Any]) -> None:
        self.folder = folder
        header = folder / HEADER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if header.exists():
                found = json.loads(header.read_text()).get("digest")
                if found != digest:
                    raise HwsimError(
                        f"{folder}: must be a folder of the same study, got one of other recognizers, speech or "
                        "machines; give another --out"
                    )
            else:
                header.write_text(json.dumps({"digest": digest, **about}, indent=1) + "\n")
        except (OSError, json.JSONDecodeError) as error:
            raise HwsimError(f"{folder}: must be a folder to write to, got {error}") from None
        self.rows = self._read()
        self._file: TextIO | None = None

    @property
    def done(self) -> set[Key]:
        """Keys of the rows that are there."""
        return {key_of(row) for row in self.rows}

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows; they are on disk when this returns."""
        if self._file is None:
            self._file = (self.folder / ROWS).open("a")
        for row in rows:
            self.rows.append(row)
            self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def of(self, search: Search, utterances: int) -> list[Row]:
        """Rows of a search over the first utterances, in their order."""
        wanted = (search.precision, search.beam, search.lm)
        mine = [row for row in self.rows if key_of(row)[:3] == wanted and row["utterance"] < utterances]
        return sorted(mine, key=lambda row: row["utterance"])

    def close(self) -> None:
        """Close the file of rows."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[Row]:
        """All whole lines; what was cut off in the middle of a line is taken away."""
        path = self.folder / ROWS
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            path.write_bytes(whole)
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except json.JSONDecodeError as error:
            raise HwsimError(f"{path}: every line must be a row of JSON, got {error}") from None
