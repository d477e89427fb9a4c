"""`hwsim train`: a network of the catalogue on a speech set, float first, then in low precision from the float one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from hwsim.errors import HwsimError
from hwsim.extract import Workload
from hwsim.speech.dataset import MANIFEST, Manifest, Split, load_manifest, load_split, load_text, sha256
from hwsim.train.checkpoint import (
    CONFIG,
    MODEL,
    STATE,
    ModelConfig,
    NetworkName,
    build_network,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from hwsim.train.digits import (
    CONFORMER_TRANSDUCER,
    FLOAT,
    LANGUAGE_MODEL,
    QUANTIZED,
    TRANSDUCER,
    Labels,
    Stage,
    perplexity,
    sentence_batches,
    utterance_batches,
    word_error_rate,
)
from hwsim.train.fit import Batches, Progress, fit
from hwsim.train.recipes import network_recipe
from hwsim.train.transducer import QuantTransducer, matrices

NETWORKS: tuple[NetworkName, ...] = ("transducer", "external_lm", "source_lm")
TRAIN, DEV, TEST = "train", "dev", "test_"
FLOAT_FOLDER = "float"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be trained."""

    workload: Workload
    network: NetworkName
    precision: str
    data: Path
    out: Path
    """Folder of the checkpoint; that of the float stage is its folder `float`."""
    seed: int = 0
    epochs: int | None = None
    """Of the last stage; None for the recipe's."""
    start: Path | None = None
    """A float checkpoint to begin with, in place of a float stage."""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Speech:
    """What a network learns from and is judged by."""

    manifest: Manifest
    digest: str
    batches: Callable[[Stage, int], Batches]
    score: Callable[[nn.Module], float]
    """WER of the split dev in percent, or perplexity of its transcripts."""
    figures: Callable[[nn.Module], dict[str, float]]


def train(request: Request, on_step: Callable[[int, int], None] | None = None) -> ModelConfig:
    """Train, write the checkpoint, and say what it reached; a run that was killed goes on where it was.

    A checkpoint that is there already, of the same request, is left as it is. `on_step(done, total)` counts the steps
    of each stage. Raises HwsimError for a speech set of other words or features, and as `fit`.
    """
    recipe = network_recipe(request.precision)
    stage = _stage(request, FLOAT)
    speech = _speech(request)
    config = ModelConfig(
        network=request.network, workload=request.workload.spec.model_copy(update={"speech": None}),
        precision=request.precision, seed=request.seed, epochs={}, command=request.command,
        data_sha256=speech.digest, torch=torch.__version__,
    )  # fmt: skip
    if not recipe.is_quantized:
        return _stage_run(request, config, speech, FLOAT, stage, request.out, None, on_step)
    start = request.start
    if start is None:
        start = request.out / FLOAT_FOLDER
        whole = _stage(replace(request, epochs=None), FLOAT)
        before = config.model_copy(update={"precision": "fp32"})
        before = _stage_run(request, before, speech, FLOAT, whole, start, None, on_step)
    else:
        before = read_config(start)
        _check_start(before, config, start)
    network = load_checkpoint(start)
    config = config.model_copy(update={"epochs": before.epochs, "start_sha256": sha256(start / MODEL)})
    spent = before.figures.get("cpu_s", 0.0)
    return _stage_run(
        request, config, speech, QUANTIZED, _stage(request, QUANTIZED), request.out, network, on_step, spent
    )


def _stage(request: Request, name: str) -> Stage:
    stages = LANGUAGE_MODEL
    if request.network == "transducer":
        stages = TRANSDUCER if request.workload.spec.encoder.kind == "lstm" else CONFORMER_TRANSDUCER
    stage = stages[name]
    return stage if request.epochs is None else replace(stage, fit=replace(stage.fit, epochs=request.epochs))


def _stage_run(
    request: Request, config: ModelConfig, speech: Speech, name: str, stage: Stage, folder: Path,
    start: nn.Module | None, on_step: Callable[[int, int], None] | None, spent_s: float = 0.0,
) -> ModelConfig:  # fmt: skip
    config = config.model_copy(update={"epochs": {**config.epochs, name: stage.fit.epochs}})
    done = _done(folder, config)
    if done is not None:
        return done
    began = time.time()
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        network = build_network(config)
    if start is not None:
        begin_from(network, start)
    key = f"{config.model_dump_json(exclude={'command', 'figures'})} {stage}"
    state = folder / STATE
    progress = fit(network, speech.batches(stage, request.seed), stage.fit, state=state, key=key, on_step=on_step,
                   score=speech.score)  # fmt: skip
    figures = _figures(progress, spent_s, time.time() - began) | speech.figures(network)
    config = config.model_copy(update={"figures": figures})
    save_checkpoint(network, config, folder)
    state.unlink(missing_ok=True)
    return config


def _figures(progress: Progress, spent_s: float, wall_s: float) -> dict[str, float]:
    loss = {"loss": round(progress.losses[-1], 4)} if progress.losses else {}
    return {**loss, "cpu_s": round(progress.cpu_s + spent_s, 1), "wall_s_of_stage": round(wall_s, 1)}


def _done(folder: Path, config: ModelConfig) -> ModelConfig | None:
    """The configuration of a finished checkpoint in the folder. Raises HwsimError when it is of something else."""
    if not (folder / CONFIG).exists():
        return None
    found = read_config(folder)
    told = {"command", "figures"}
    if found.model_dump(exclude=told) != config.model_dump(exclude=told):
        raise HwsimError(f"{folder}: must be empty or hold this very checkpoint, got one of other settings")
    load_checkpoint(folder)
    return found


def begin_from(network: nn.Module, start: nn.Module) -> None:
    """Take the parameters of a float network, and fit masks and codebooks to them.

    Raises HwsimError for parameters that the float network has and this one has not, or the other way round.
    """
    given, own = dict(start.named_parameters()), dict(network.named_parameters())
    grids = {name for name in own if name.endswith(("lower", "upper"))}
    if set(given) != set(own) - grids:
        odd = sorted(set(given) ^ (set(own) - grids))[0]
        raise HwsimError(
            f"a float network to begin with must have the parameters of this one, got a difference in {odd}"
        )
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)
    for _, matrix, grid in matrices(network):
        if hasattr(grid, "prepare"):
            grid.prepare(matrix)


def _check_start(found: ModelConfig, config: ModelConfig, folder: Path) -> None:
    if network_recipe(found.precision).is_quantized:
        raise HwsimError(f"{folder}: a checkpoint to begin with must be fp32, got {found.precision}")
    if (found.network, found.workload) != (config.network, config.workload):
        raise HwsimError(f"{folder}: a checkpoint to begin with must be of the {config.network} of "
                         f"{config.workload.name}, got the {found.network} of {found.workload.name}")  # fmt: skip


def _speech(request: Request) -> Speech:
    manifest = load_manifest(request.data)
    spec = request.workload.spec
    sizes = (spec.encoder.input, manifest.features.width), (spec.joint.outputs, len(manifest.words) + 1)
    for (own, given), what in zip(sizes, ("features per frame", "labels"), strict=True):
        if own != given:
            raise HwsimError(f"{request.data}: must have {own} {what}, as workload {spec.name}, got {given}")
    digest = sha256(request.data / MANIFEST)
    dev = load_split(request.data / f"{DEV}.npz")
    if request.network == "transducer":
        return _transducer_speech(request, manifest, digest, dev)
    texts = load_text(request.data)
    if request.network == "source_lm":
        texts = load_split(request.data / f"{TRAIN}.npz").transcripts.tolist()
    sentences = [manifest.encode(text) for text in texts]
    held_out: list[Labels] = [manifest.encode(text) for text in dev.transcripts.tolist()]
    return Speech(
        manifest, digest, lambda stage, seed: lambda epoch: sentence_batches(sentences, stage, seed, epoch),
        lambda network: perplexity(network, held_out),
        lambda network: {f"perplexity_{DEV}": round(perplexity(network, held_out), 3)},
    )  # fmt: skip


def _transducer_speech(request: Request, manifest: Manifest, digest: str, dev: Split) -> Speech:
    split, bins = load_split(request.data / f"{TRAIN}.npz"), manifest.features.bins

    def figures(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, QuantTransducer)
        names = [name for name in manifest.splits if name == DEV or name.startswith(TEST)]
        return {f"wer_{name}": round(word_error_rate(network, load_split(request.data / f"{name}.npz")), 2)
                for name in names}  # fmt: skip

    return Speech(
        manifest, digest, lambda stage, seed: lambda epoch: utterance_batches(split, stage, seed, epoch, bins),
        lambda network: word_error_rate(network, dev), figures,  # type: ignore[arg-type]
    )  # fmt: skip
