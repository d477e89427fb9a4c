"""Checkpoints of codes: the same network, fewer bytes, and every damage refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
torch.set_num_threads(1)

from safetensors.torch import load_file, save_file  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.train.checkpoint import ModelConfig, load_checkpoint, save_checkpoint, ship  # noqa: E402
from hwsim.train.compact import pack_indices, unpack_indices  # noqa: E402
from hwsim.train.emit_transducer import convert_transducer  # noqa: E402
from hwsim.train.recipes import RECIPES, network_recipe  # noqa: E402
from hwsim.train.store import load_parameters, save_parameters  # noqa: E402
from hwsim.train.transducer import QuantTransducer  # noqa: E402
from tests.train.test_transducer import batch, small, trained  # noqa: E402

QUANTIZED = [name for name, recipe in RECIPES.items() if recipe.is_quantized and name != "analog"]


def saved(folder: Path, precision: str) -> Any:
    torch.manual_seed(0)
    network = trained(QuantTransducer(small(), network_recipe(precision)), *batch()).float()
    config = ModelConfig(network="transducer", workload=small(), precision=precision, seed=0, epochs={}, command="",
                         data_sha256="", torch="")  # fmt: skip
    save_checkpoint(network, config, folder)
    return load_checkpoint(folder)


@pytest.mark.parametrize("precision", QUANTIZED)
def test_what_ships_is_the_same_network(precision: str, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", precision).double()
    ship(tmp_path / "whole", tmp_path / "small")
    shipped = load_checkpoint(tmp_path / "small").double()
    x, frames, labels, lengths = batch()
    assert torch.equal(whole(x.double(), frames, labels, lengths), shipped(x.double(), frames, labels, lengths))
    for name, part in convert_transducer(whole, 13).items():
        other = convert_transducer(shipped, 13)[name]
        assert part.codes.keys() == other.codes.keys()
        assert all(np.array_equal(codes, other.codes[key]) for key, codes in part.codes.items())
    ship(tmp_path / "small", tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "small/model.safetensors").read_bytes()


def test_bytes_of_four_bits(tmp_path: Path) -> None:
    network = saved(tmp_path / "whole", "int4")
    ship(tmp_path / "whole", tmp_path / "small")
    tensors = load_file(str(tmp_path / "small/model.safetensors"))
    packed = sum(value.numel() for name, value in tensors.items() if name.endswith(".packed"))
    weights = sum(p.numel() for name, p in network.named_parameters() if "weight" in name)
    assert packed == weights // 2


@given(st.integers(0, 8), st.lists(st.integers(0, 255), max_size=40))
def test_packed_indices_come_back(bits: int, values: list[int]) -> None:
    indices = np.array(values, np.int64) % (1 << bits)
    packed = pack_indices(indices, bits)
    assert packed.size == -(-bits * len(values) // 8)
    assert np.array_equal(unpack_indices(packed, bits, len(values)), indices)


def test_damage_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "whole", "int4")
    ship(tmp_path / "whole", tmp_path / "small")
    path = tmp_path / "small/model.safetensors"
    good, name = load_file(str(path)), "joint.output.weight"

    def refused(**changes: Any) -> str:
        tensors = {**good, **{key.replace("__", "."): value for key, value in changes.items()}}
        save_file({key: value for key, value in tensors.items() if value is not None}, str(path))
        with pytest.raises(HwsimError) as raised:
            load_checkpoint(tmp_path / "small")
        return str(raised.value).removeprefix(f"{path}: ")

    key = name.replace(".", "__")
    table = good[f"{name}.table"]
    assert refused(**{f"{key}__packed": None}) == f"tensors must hold {name}.packed, got none"
    assert refused(**{f"{key}__packed": good[f"{name}.packed"][1:]}) == "72 codes of 4 bits must be 36 bytes, got 35"
    assert refused(**{f"{key}__table": table.float()}) == (
        f"{name}: must have bytes of codes, an int8 table and float64 scales"
    )
    wide = table.clone()
    wide[0] = -8
    assert refused(**{f"{key}__table": wide}) == f"{name}: codes must be -7 to 7, got -8 to {int(wide.max())}"
    fewer = torch.full((36,), 255, dtype=torch.uint8)
    count = len(table)
    assert refused(**{f"{key}__packed": fewer}) == f"{name}: codes must be below {count}, got 15"
    assert refused(**{f"{key}__scale": torch.ones(3, dtype=torch.float64)}) == (
        f"{name}: scales must be one or (1, 6), got (3,)"
    )
    assert refused(joint__output__bias=torch.zeros(5)) == (
        "joint.output.bias: must be a tensor of the network, of its shape and type"
    )
    assert refused(joint__output__bias=None) == "tensors must hold joint.output.bias, got none"
    path.write_bytes(b"no tensors")
    with pytest.raises(HwsimError, match=r"model\.safetensors: must be a safetensors file, got"):
        load_checkpoint(tmp_path / "small")
    saved(tmp_path / "float", "fp32")
    with pytest.raises(HwsimError, match="must be on a symmetric grid of at most 8 bits to be kept as codes"):
        ship(tmp_path / "float", tmp_path / "small")


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in range(1, 257):
        module = torch.nn.Module()
        module.register_parameter("p" * length, torch.nn.Parameter(torch.ones(2)))
        save_parameters(module, path)
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    with torch.no_grad():
        next(module.parameters()).zero_()
    load_parameters(module, path)
    assert bool(next(module.parameters()).all())
