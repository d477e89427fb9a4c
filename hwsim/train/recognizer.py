"""From the checkpoints of a transducer and its language models to a recognizer that decodes in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim.decode.settings import Fusion
from hwsim.errors import HwsimError
from hwsim.extract.spec import NetworkSpec
from hwsim.numerics import NumberFormat, load_policy
from hwsim.recognize import Recognizer
from hwsim.recognize.frontend import KEY as FEATURES
from hwsim.recognize.frontend import Frontend
from hwsim.speech.dataset import load_manifest
from hwsim.trace import Role, Trace
from hwsim.train.analog import NoisyWeights
from hwsim.train.checkpoint import ModelConfig, load_checkpoint, read_config
from hwsim.train.emit_transducer import convert_language_model, convert_transducer
from hwsim.train.export import Converted
from hwsim.train.language_model import QuantLanguageModel
from hwsim.train.recipes import NetworkRecipe, network_recipe
from hwsim.train.transducer import QuantTransducer
from hwsim.train.weights import SparseWeights

TRANSDUCER, MODELS = "transducer", ("external_lm", "source_lm")
FRAMES, ROWS = 512, 64
"""Sizes of the executables: longer utterances and wider beams go through in pieces."""
HALF = "fp16"
DENSE = ("embedding.table", "depthwise.weight")
"""Weights that no recipe prunes: those that are looked up, and those that meet one channel each."""


def build_recognizer(folder: str | Path, data: str | Path, fusions: Mapping[str, Fusion] | None = None) -> Recognizer:
    """The recognizer of the checkpoints in `folder/transducer`, and in `external_lm` and `source_lm` where they are.

    `data`: the speech set, which says what the labels mean. `fusions`: weights of language models, see `fusions_of`.
    Float networks are executed in FP16. Raises HwsimError for checkpoints that are missing, of different precisions,
    or of another number of words than `data`.
    """
    root = Path(folder)
    names = [TRANSDUCER, *(name for name in MODELS if (root / name).is_dir())]
    configs = {name: read_config(root / name) for name in names}
    first, manifest = configs[TRANSDUCER], load_manifest(data)
    for name, config in configs.items():
        if _executed(config) != _executed(first):
            raise HwsimError(f"{root / name}: must be {first.precision}, as the transducer, got {config.precision}")
    if len(manifest.words) + 1 != first.workload.joint.outputs:
        raise HwsimError(f"{data}: must have {first.workload.joint.outputs - 1} words, got {len(manifest.words)}")
    recipe = network_recipe(_executed(first))
    parts: dict[str, Converted] = {}
    for name in names:
        parts |= _parts(load_checkpoint(root / name).double().eval(), name)
    networks = {name: with_formats(part, recipe).executable() for name, part in parts.items()}
    about = _about(configs) | {FEATURES: Frontend.of_speech(manifest).to_dict()}
    return Recognizer(networks, manifest.words, first.workload.encoder.reduction, fusions or {}, about)


def fusions_of(spec: NetworkSpec) -> dict[str, Fusion]:
    """The weights of language models that a workload's file gives."""
    return {name: Fusion(one.weight, one.source_weight, one.length_reward) for name, one in spec.decode.fusions.items()}


def _parts(network: Any, name: str) -> dict[str, Converted]:
    if isinstance(network, QuantTransducer):
        return convert_transducer(network, FRAMES, ROWS)
    assert isinstance(network, QuantLanguageModel)
    return {name: convert_language_model(network, ROWS, name)}


def with_formats(part: Converted, recipe: NetworkRecipe) -> Converted:
    """The trace with what its codes alone do not say: halves, and the N:M rule of pruned weights."""
    if recipe.name == HALF or isinstance(recipe.weight, NoisyWeights):
        return replace(part, trace=part.trace.with_precision(load_policy(HALF)))
    if isinstance(recipe.weight, SparseWeights):
        return replace(part, trace=_pruned(part.trace, recipe.weight))
    return part


def _pruned(trace: Trace, recipe: SparseWeights) -> Trace:
    bits = recipe.calibration.calibrate([-1.0, 1.0]).bits
    fmt = str(NumberFormat(f"int{bits}", sparsity=recipe.sparsity))
    tensors = (
        replace(t, format=fmt) if t.role == Role.WEIGHT and not t.name.endswith(DENSE) else t for t in trace.tensors
    )
    return replace(trace, tensors=tuple(tensors))


def _about(configs: dict[str, ModelConfig]) -> dict[str, Any]:
    """What made it: commands, seeds, hashes and figures of each network."""
    first = configs[TRANSDUCER]
    kept = ("command", "seed", "epochs", "start_sha256", "data_sha256", "torch", "figures")
    networks = {name: {key: config.model_dump(mode="json")[key] for key in kept} for name, config in configs.items()}
    return {"workload": first.workload.name, "precision": _executed(first), "networks": networks}


def _executed(config: ModelConfig) -> str:
    """The precision in which a checkpoint is executed: float ones in halves."""
    return config.precision if network_recipe(config.precision).is_quantized else HALF
