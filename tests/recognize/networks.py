"""A small recognizer with random weights, as modules and as executables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest

torch = pytest.importorskip("torch")

from hwsim.decode.settings import Fusion  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.recognize import Recognizer  # noqa: E402
from hwsim.train.emit_transducer import convert_language_model, convert_transducer  # noqa: E402
from hwsim.train.language_model import QuantLanguageModel  # noqa: E402
from hwsim.train.recipes import network_recipe  # noqa: E402
from hwsim.train.recognizer import with_formats  # noqa: E402
from hwsim.train.search import GraphTransducer, graph_language_model  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402

FRAMES, ROWS, LABELS = 40, 8, 24
FUSIONS = {"density-ratio": Fusion(0.6, 0.4, 0.3)}


@dataclass(frozen=True)
class Both:
    recognizer: Recognizer
    graph: GraphTransducer
    models: tuple[object, object]


@cache
def both(precision: str, workload: str = "digits") -> Both:
    """Grids are calibrated on noise; blank is made likely, so that few labels are emitted."""
    torch.manual_seed(1)
    spec, recipe = load_workload(workload).spec, network_recipe(precision)
    speech = load_workload("digits").spec.speech
    network = QuantTransducer(spec, recipe)
    models = [QuantLanguageModel(spec.language_models[name], recipe) for name in ("external_lm", "source_lm")]  # type: ignore[index]
    for module in (network, *models):
        for _, matrix, grid in matrices(module):
            if hasattr(grid, "prepare"):
                grid.prepare(matrix)
    labels, lengths = torch.randint(1, LABELS, (5, 2)), torch.tensor([5, 3])
    network.train()(torch.randn(FRAMES, 2, 120), torch.tensor([FRAMES, 30]), labels, lengths)
    for model in models:
        model.train()(labels, lengths)
    with torch.no_grad():
        network.joint.output.weight.mul_(4.0)
        network.joint.output.bias[0] += 0.5
    for module in (network, *models):
        module.double().eval()
    parts = convert_transducer(network, FRAMES, ROWS)
    for name, model in zip(("external_lm", "source_lm"), models, strict=True):
        parts[name] = convert_language_model(model, ROWS, name)
    networks = {name: with_formats(part, recipe).executable() for name, part in parts.items()}
    words = tuple(speech.words) if speech else ()
    recognizer = Recognizer(networks, words, 2, FUSIONS, {"workload": workload, "precision": precision})
    first, second = (graph_language_model(model) for model in models)
    return Both(recognizer, GraphTransducer(network), (first, second))
