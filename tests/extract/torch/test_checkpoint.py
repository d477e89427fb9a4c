"""State dictionaries into modules: all of it, and no code of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.torch import load_weights  # noqa: E402


def saved(tmp_path: Path, state: object, name: str = "weights.pt") -> Path:
    torch.save(state, tmp_path / name)
    return tmp_path / name


def message(module: nn.Module, path: Path) -> str:
    with pytest.raises(HwsimError) as error:
        load_weights(module, path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_state_dictionary(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    load_weights(target, saved(tmp_path, source.state_dict()))
    assert equal(source, target)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dictionary_within_a_checkpoint(tmp_path: Path, key: str) -> None:
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    load_weights(target, saved(tmp_path, {key: source.state_dict(), "epoch": 3}))
    assert equal(source, target)


def test_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source.running_mean.fill_(2.0)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert equal(source, target)


def test_torn_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"12345678torn")
    assert message(nn.Linear(3, 4), tmp_path / "w.safetensors").startswith("must be a whole safetensors file, got ")


def test_keys_are_compared(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(3, 4, bias=False).state_dict() | {"extra": torch.zeros(1)})
    assert message(nn.Linear(3, 4), path) == (
        "keys must be those of the module, got 1 missing: bias and 1 unexpected: extra"
    )
    path = saved(tmp_path, nn.Linear(3, 4).state_dict() | {f"e{at}": torch.zeros(1) for at in range(7)})
    assert message(nn.Linear(3, 4), path) == (
        "keys must be those of the module, got 7 unexpected: e0, e1, e2, e3, e4 and 2 more"
    )


def test_shapes_are_compared(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(3, 5).state_dict())
    assert message(nn.Linear(3, 4), path) == "'weight' must have shape (4, 3), got (5, 3)"


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    text = message(nn.Linear(3, 4), saved(tmp_path, nn.Linear(3, 4)))
    assert text.startswith("must be a state dictionary of tensors, got pickled objects or another file (")
    assert text.endswith("): save module.state_dict(), or use safetensors")


def test_other_contents_are_refused(tmp_path: Path) -> None:
    assert message(nn.Linear(3, 4), saved(tmp_path, [1, 2])) == "must be a state dictionary of tensors, got list"


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(30, 40).state_dict())
    path.write_bytes(path.read_bytes()[:500])
    assert message(nn.Linear(30, 40), path).startswith("must be a ")


def test_a_missing_file(tmp_path: Path) -> None:
    assert message(nn.Linear(3, 4), tmp_path / "none.pt") == "weights must be a file, got none"
