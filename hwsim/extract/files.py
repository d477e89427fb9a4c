"""`from_onnx` and `from_torch`: what a toolkit exports becomes a recognizer that can be simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.errors import HwsimError
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.graph.nodes import Graph, Node, NodeKind
from hwsim.extract.graph.split import split_decoder_joint
from hwsim.extract.spec import DecodeDefaults

if TYPE_CHECKING:
    from torch import nn

ALONE = "greedy"
BOTH = "decoder_joint"


@dataclass(frozen=True)
class Speech:
    """What no file of a network says about its recognizer; each default is an assumption that results list.

    `frame_period_s`: time between the encoder's input frames. `labels_per_second`: of the speech that is decoded:
    12 are characters, word pieces are 3 to 5. `frames`: input frames; None for those of the encoder's input.
    """

    frame_period_s: float = 0.01
    labels_per_second: float = 12.0
    algorithm: str = "alsd"
    beam: int = 4
    frames: int | None = None
    source: str = "Assumption: 10 ms features, 12 labels a second, ALSD with beam 4 unless told otherwise"


def from_onnx(
    encoder: str | Path, *, prediction: str | Path | None = None, joint: str | Path | None = None,
    decoder_joint: str | Path | None = None, lm: str | Path | None = None, source_lm: str | Path | None = None,
    bind: Mapping[str, int] | None = None, name: str | None = None, speech: Speech | None = None,
    allow_float: bool = False,
) -> ExtractedModel:  # fmt: skip
    """A recognizer of ONNX files: an encoder alone, or the three of a transducer and language models.

    `decoder_joint`: prediction network and joint in one file, as NeMo exports them, in place of the two. `bind`: sizes
    of symbolic dimensions by name, for whichever files have them. `allow_float`: take a float product in
    a file that is otherwise quantized, with a note. Raises HwsimError, naming file and node, for what is not read.
    """
    from hwsim.extract.onnx import read_structure
    from hwsim.extract.onnx.files import symbols

    if decoder_joint is not None and (prediction is not None or joint is not None):
        raise HwsimError("decoder_joint must be given in place of prediction and joint, got both")
    given = {"encoder": encoder, "prediction": prediction, "joint": joint, BOTH: decoder_joint, "external_lm": lm,
             "source_lm": source_lm}  # fmt: skip
    paths = {component: Path(path) for component, path in given.items() if path is not None}
    sizes = dict(bind or {})
    names = {component: symbols(path) for component, path in paths.items()}
    unknown = [size for size in sizes if not any(size in known for known in names.values())]
    if unknown:
        everything = ", ".join(sorted({size for known in names.values() for size in known})) or "none"
        raise HwsimError(f"bind must name a symbolic size, got '{unknown[0]}': the files have {everything}")
    graphs = {
        component: read_structure(path, {size: sizes[size] for size in sizes if size in names[component]},
                                  name=component, allow_float=allow_float)
        for component, path in paths.items()
    }  # fmt: skip
    if BOTH in graphs:
        split = split_decoder_joint(graphs[BOTH])
        parts = {"encoder": graphs["encoder"], "prediction": split[0], "joint": split[1]}
        graphs = {**parts, **{key: graph for key, graph in graphs.items() if key not in (BOTH, "encoder")}}
    return recognizer(name or paths["encoder"].stem, graphs, speech)


def from_torch(
    module: nn.Module, example_inputs: Sequence[Any], *, prediction: tuple[nn.Module, Sequence[Any]] | None = None,
    joint: tuple[nn.Module, Sequence[Any]] | None = None, lm: tuple[nn.Module, Sequence[Any]] | None = None,
    source_lm: tuple[nn.Module, Sequence[Any]] | None = None, name: str | None = None, speech: Speech | None = None,
    unused: Literal["refuse", "note"] = "refuse",
) -> ExtractedModel:  # fmt: skip
    """A recognizer of PyTorch modules, each with inputs of the sizes to be simulated.

    `module`: the encoder. The prediction network and language models read one label, the joint one row of each side.
    `unused`: whether parameters that the forward pass does not read are refused or noted.
    Raises HwsimError, naming the module and the operator, for what does not export or is not read.
    """
    from hwsim.extract.torch import read_module

    given = {"encoder": (module, example_inputs), "prediction": prediction, "joint": joint, "external_lm": lm,
             "source_lm": source_lm}  # fmt: skip
    graphs = {
        component: read_module(pair[0], tuple(pair[1]), name=component, unused=unused)
        for component, pair in given.items() if pair is not None
    }  # fmt: skip
    return recognizer(name or type(module).__name__.lower(), graphs, speech)


def recognizer(name: str, graphs: Mapping[str, Graph], speech: Speech | None = None) -> ExtractedModel:
    """A model of graphs by component, and what they do not say."""
    told = speech or Speech()
    frames = told.frames or input_frames(graphs["encoder"])
    algorithm, beam = (told.algorithm, told.beam) if len(graphs) > 1 else (ALONE, 1)
    decode = DecodeDefaults.model_validate({
        "algorithm": algorithm, "beam": beam, "frames": frames, "labels_per_second": told.labels_per_second,
        "source": told.source,
    })  # fmt: skip
    return ExtractedModel(name, graphs, frames, told.frame_period_s, decode)


def input_frames(encoder: Graph) -> int:
    """Input frames of an encoder: rows of its features, as its first product or recurrent layer reads them.

    Raises HwsimError when nothing says which axis they are.
    """
    real = [name for name in encoder.inputs if not encoder.values[name].integer]
    if not real:
        raise HwsimError(f"{encoder.name}: an encoder must have features among its inputs, got {encoder.inputs}")
    features = encoder.values[real[0]]
    first = _first_reader(encoder, real[0])
    sizes = [size for size in features.shape if size > 1] or [1]
    if first is None:
        raise HwsimError(f"{encoder.name}: frames must be given, nothing says which axis of {features.shape} they are")
    if first.kind in (NodeKind.LSTM, NodeKind.GRU):
        return int(features.elements // first["inputs"] // first["batch"])
    if first.kind == NodeKind.CONV and first["dimensions"] == 2:
        return max(sizes[-2:])
    width = first["inputs"] if first.kind == NodeKind.CONV else encoder.weights[first.weights["weight"]].shape[0]
    batch = features.shape[0] if len(features.shape) > 2 or first.kind == NodeKind.CONV else 1
    frames = features.elements // max(batch, 1) // width
    if frames < 1 or frames * width * batch != features.elements:
        raise HwsimError(f"{encoder.name}: frames must be given, {features.shape} is no number of rows of {width}")
    return int(frames)


def _first_reader(graph: Graph, name: str) -> Node | None:
    """The first product or recurrent layer behind a value."""
    reached = {name}
    for node in graph.nodes:
        if reached.isdisjoint(node.inputs):
            continue
        if node.kind in (NodeKind.LINEAR, NodeKind.CONV, NodeKind.LSTM, NodeKind.GRU):
            return node
        reached.update(node.outputs)
    return None
