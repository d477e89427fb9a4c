"""Checkpoints: tensors in safetensors, what made them in JSON.

Files appear whole or not at all; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from hwsim.config import Frozen
from hwsim.errors import HwsimError
from hwsim.extract.spec import LstmStackSpec, NetworkSpec
from hwsim.train.compact import compact_tensors, load_compact
from hwsim.train.language_model import QuantLanguageModel
from hwsim.train.recipes import network_recipe
from hwsim.train.store import load_parameters, save_parameters
from hwsim.train.transducer import QuantTransducer

MODEL, CONFIG, STATE = "model.safetensors", "model.json", "training.safetensors"
FORMAT = 1
NetworkName = Literal["transducer", "external_lm", "source_lm"]


class ModelConfig(Frozen):
    """What a checkpoint holds, and what made it."""

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    network: NetworkName
    workload: NetworkSpec
    """The definition of the network, whole, without its speech."""
    precision: str
    seed: Annotated[int, Field(ge=0)]
    epochs: dict[str, int]
    """Of each stage."""
    command: str
    data_sha256: str
    """Of the manifest of the speech set."""
    start_sha256: str | None = None
    """Of the float parameters with which training in low precision began."""
    torch: str
    """Version."""
    compact: bool = False
    """Whether the file holds codes of the weights, for evaluation alone."""
    figures: dict[str, float] = Field(default_factory=dict)
    """WER in percent by split, loss, seconds."""

    @property
    def stack(self) -> LstmStackSpec:
        """The definition of a language model. Raises HwsimError when the workload has none of the name."""
        for name, stack in self.workload.language_models.items():
            if name == self.network:
                return stack
        raise HwsimError(f"workload {self.workload.name} must have {self.network} to be trained, got none")


def build_network(config: ModelConfig) -> QuantTransducer | QuantLanguageModel:
    """The network of a configuration, with random parameters. Raises HwsimError for an unknown precision."""
    recipe = network_recipe(config.precision)
    if config.network == "transducer":
        return QuantTransducer(config.workload, recipe)
    return QuantLanguageModel(config.stack, recipe)


def save_checkpoint(network: nn.Module, config: ModelConfig, folder: str | Path) -> None:
    """Write `model.safetensors` and `model.json`, each whole or not at all. Raises HwsimError when it cannot."""
    folder = Path(folder)
    if config.compact:
        tensors = {name: value.contiguous() for name, value in compact_tensors(network).items()}
        write_whole(folder / MODEL, lambda path: _save_file(tensors, path))
    else:
        write_whole(folder / MODEL, lambda path: save_parameters(network, path))
    text = json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(folder / CONFIG, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of a checkpoint. Raises HwsimError when there is none, or one of another kind."""
    path = Path(folder) / CONFIG
    try:
        return ModelConfig.model_validate_json(path.read_bytes())
    except OSError:
        raise HwsimError(f"{folder}: must be a folder with a checkpoint, got no {CONFIG}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise HwsimError(f"{path}: must describe a checkpoint, got a wrong {where}: {problem['msg']}") from None


def load_checkpoint(folder: str | Path) -> QuantTransducer | QuantLanguageModel:
    """The trained network of a folder, in evaluation and float32; `.double()` makes it the one that integers equal.

    Raises HwsimError for files that are missing or of another kind (a pickle is refused unread), an unknown
    precision, and parameters whose names, shapes or types are not those of the configuration.
    """
    config = read_config(folder)
    network, path = build_network(config), Path(folder) / MODEL
    if config.compact:
        _load_compact(network, path)
    else:
        load_parameters(network, path)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise HwsimError(f"{path}: {name} must be finite, got NaN or an infinity")
    return network.eval()


def ship(folder: str | Path, out: str | Path) -> None:
    """Write the checkpoint of a folder to another as codes: the same network in evaluation, in an eighth of the bytes.

    Raises HwsimError for a network in floating point, and as `load_checkpoint`.
    """
    config = read_config(folder)
    save_checkpoint(load_checkpoint(folder), config.model_copy(update={"compact": True}), out)


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, str(path))


def _load_compact(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise HwsimError(f"{path}: must be a safetensors file, got {str(error).splitlines()[0]}") from None
    try:
        load_compact(network, tensors)
    except HwsimError as error:
        raise HwsimError(f"{path}: {error}") from None


def save_state(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors and a JSON object in one file, whole or not at all."""
    from safetensors.torch import save_file

    kept = {name: value.detach().contiguous() for name, value in tensors.items()}
    write_whole(Path(path), lambda partial: save_file(kept, str(partial), {"about": json.dumps(about)}))


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote. Raises HwsimError for a file of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise HwsimError(f"{path}: must be the state of a training, got {error}") from None


def write_whole(path: Path, write: Any) -> None:
    """Let `write` fill a file beside `path`, then put it in its place. Raises HwsimError when it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise HwsimError(f"{path}: must be writable, got {(error.strerror or str(error)).lower()}") from None
    finally:
        partial.unlink(missing_ok=True)
