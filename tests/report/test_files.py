"""Output files appear whole or not at all; what cannot be written is refused before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hwsim.errors import HwsimError
from hwsim.report import files


def message(error: pytest.ExceptionInfo[HwsimError]) -> str:
    return str(error.value)


def test_a_file_in_a_folder_is_accepted_and_not_made(tmp_path: Path) -> None:
    assert files.check_output_file(tmp_path / "a.json") == tmp_path / "a.json"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old", encoding="utf-8")
    files.check_output_file(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "old"


def test_unwritable_files_are_refused(tmp_path: Path) -> None:
    below = tmp_path / "file.txt"
    below.write_text("", encoding="utf-8")
    for path, reason in {
        tmp_path: "must be a file to write to, got a folder",
        tmp_path / "no" / "a.json": f"must be in a folder that exists, got none at {tmp_path / 'no'}",
        below / "a.json": f"must be in a folder, got the file {below}",
        below / "no" / "a.json": f"must be in a folder, got the file {below}",
    }.items():
        with pytest.raises(HwsimError) as error:
            files.check_output_file(path)
        assert message(error) == f"{path}: {reason}"


def test_unwritable_folders_are_refused(tmp_path: Path) -> None:
    below = tmp_path / "file.txt"
    below.write_text("", encoding="utf-8")
    for path, reason in {
        below: "must be a folder to write to, got a file",
        below / "out": f"must be in a folder, got the file {below}",
    }.items():
        with pytest.raises(HwsimError) as error:
            files.check_output_folder(path)
        assert message(error) == f"{path}: {reason}"
    with pytest.raises(HwsimError) as error:
        files.make_folder(below / "out")
    assert message(error) == f"{below / 'out'}: must be writable, got not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_permissions_are_respected(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HwsimError) as error:
        files.check_output_file(tmp_path / "a.json")
    tmp_path.chmod(0o700)
    assert message(error) == f"{tmp_path / 'a.json'}: must be writable, got permission denied"


def test_a_folder_to_be_made_is_accepted_and_not_made(tmp_path: Path) -> None:
    files.check_output_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    assert files.make_folder(tmp_path / "a" / "b").is_dir()


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with files.written(path) as file:
        file.write("new")
        assert path.read_text(encoding="utf-8") == "old"
        assert (tmp_path / "a.txt.partial").exists()
    assert path.read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("mistake", [KeyboardInterrupt, ZeroDivisionError])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, mistake: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(mistake):
        _write_half(path, mistake)
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def _write_half(path: Path, mistake: type[BaseException]) -> None:
    with files.written(path) as file:
        file.write("half")
        raise mistake


def test_a_full_disk_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(HwsimError) as error, files.written(path):
        raise OSError(28, "No space left on device")
    assert message(error) == f"{path}: must be writable, got no space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_link_keeps_pointing_at_its_file(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}", encoding="utf-8")
    (tmp_path / "link.json").symlink_to("real.json")
    files.write_json(tmp_path / "link.json", {"µ": [1, 2.5, None]})
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text(encoding="utf-8")) == {"µ": [1, 2.5, None]}


def test_a_device_is_written_directly() -> None:
    files.check_output_file("/dev/null")
    files.write_json("/dev/null", {})


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"rtf": float("nan")})
    assert list(tmp_path.iterdir()) == []
