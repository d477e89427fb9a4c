"""A user's own networks: step by step against their modules, whole against the search on the float64 graph."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.decode import DecodeSettings  # noqa: E402
from hwsim.decode.beam import decode  # noqa: E402
from hwsim.decode.settings import Fusion  # noqa: E402
from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, Sawb  # noqa: E402
from hwsim.recognize import load_recognizer, save_recognizer  # noqa: E402
from hwsim.recognize.policy import policy_of  # noqa: E402
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear  # noqa: E402
from hwsim.train.parts import ModuleSteps, ModuleTransducer, export_recognizer  # noqa: E402
from hwsim.train.recurrent import QuantGRU, QuantLSTM  # noqa: E402

WORDS = ("a", "b", "c", "d")
LABELS = len(WORDS) + 1
SEARCHES = [
    DecodeSettings("greedy", 1, lm="none", max_symbols_per_frame=1),
    DecodeSettings("alsd", 6, lm="density-ratio"),
    DecodeSettings("maes", 4, lm="shallow"),
]


def sequential(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def label_network(recurrent: type, outputs: int, layers: int = 1) -> nn.Sequential:
    return sequential(
        embedding=QuantEmbedding(LABELS, 6, weight=Sawb(4)),
        cells=recurrent(6, 8, layers, weight=Sawb(4), input=None, hidden=BoundAware(1.0, 4)),
        output=QuantLinear(8, outputs, weight=Sawb(4)),
    )


def parts(combine: str = "add", recurrent: type = QuantLSTM) -> dict[str, Any]:
    """Networks of random weights, their ranges seen; rare blanks make the search emit labels."""
    torch.manual_seed(3)
    encoder = sequential(
        lower=QuantLSTM(5, 8, weight=Sawb(4), input=MinMax(4), hidden=BoundAware(1.0, 4)),
        norm=QuantLayerNorm(8, output=MinMax(8)),
        upper=QuantLSTM(8, 8, weight=Sawb(4), input=None, hidden=BoundAware(1.0, 4)),
        projection=QuantLinear(8, 7, weight=Sawb(4)),
    )
    joint = sequential(tanh=QuantActivation("tanh", output=BoundAware(1.0, 4)), out=QuantLinear(7, LABELS))
    joint.out.weight_grid = None
    networks = {"encoder": encoder, "prediction": label_network(recurrent, 7, 2), "joint": joint}
    encoder.train()(torch.randn(30, 5))
    with torch.no_grad():
        joint.out.weight.mul_(6.0)
    models = {name: label_network(recurrent, LABELS) for name in ("external_lm", "source_lm")}
    for network in (*networks.values(), *models.values()):
        network.double().eval()
    return {**networks, "models": models, "combine": combine}


def exported(given: dict[str, Any], **changes: Any) -> Any:
    options: dict[str, Any] = {
        "language_models": given["models"], "combine": given["combine"], "frames": 16, "rows": 4,
        "fusions": {"density-ratio": Fusion(0.5, 0.2, 0.1)}, **changes,
    }  # fmt: skip
    return export_recognizer(given["encoder"], given["prediction"], given["joint"], WORDS, **options)


@pytest.mark.parametrize("settings", SEARCHES, ids=lambda s: s.algorithm)
@pytest.mark.parametrize(("combine", "recurrent"), [("add", QuantLSTM), ("multiply", QuantLSTM), ("add", QuantGRU)])
def test_integers_find_what_the_modules_find(combine: str, recurrent: type, settings: DecodeSettings) -> None:
    given = parts(combine, recurrent)
    recognizer = exported(given)
    graph = ModuleTransducer(given["encoder"], given["prediction"], given["joint"], combine)
    models = [ModuleSteps(model, log_softmax=True) for model in given["models"].values()][: settings.language_models]
    emitted = 0
    for frames in (1, 16, 41):
        x = np.random.default_rng(frames).standard_normal((frames, 5))
        found = recognizer.transcribe(x, settings, n_best=4)
        wanted = decode(graph, graph.encode(x), settings, recognizer.fusions.get(settings.lm), models, 4)
        assert [one.labels for one in found.decoded.n_best] == [one.labels for one in wanted.n_best]
        np.testing.assert_allclose([s for _, s in found.n_best], [one.score for one in wanted.n_best], atol=1e-11)
        assert np.array_equal(found.decoded.rows.new, wanted.rows.new)
        emitted += len(wanted.n_best[0].labels)
    assert emitted > 3


def test_a_stream_and_a_file_say_the_same(tmp_path: Any) -> None:
    recognizer, settings = exported(parts()), SEARCHES[1]
    x = np.random.default_rng(0).standard_normal((37, 5))
    whole = recognizer.transcribe(x, settings, n_best=3).n_best
    stream = recognizer.stream(settings)
    for at in range(0, 37, 5):
        stream.feed(x[at : at + 5])
    assert stream.finish(3).n_best == whole
    save_recognizer(recognizer, tmp_path / "mine.recognizer")
    assert load_recognizer(tmp_path / "mine.recognizer").transcribe(x, settings, n_best=3).n_best == whole


def test_layers_have_the_names_of_the_catalogue() -> None:
    policy = policy_of(exported(parts()), "mine")
    assert {glob for glob, _ in policy.rules} >= {
        "encoder.lower.layer0", "encoder.upper.layer0", "joint.encoder_projection", "prediction.embedding",
        "prediction.layer0", "prediction.layer1", "joint.prediction_projection", "joint.output", "external_lm.layer0",
        "source_lm.output",
    }  # fmt: skip
    assert str(policy.resolve("prediction.layer1").weights) == "int4"


def test_what_is_refused() -> None:
    given = parts()
    bare = sequential(lstm=QuantLSTM(5, 8))
    gridded = sequential(lstm=QuantLSTM(5, 8), out=QuantLinear(8, 7, output=BoundAware(4.0, 8)))
    for encoder, got in ((bare, "QuantLSTM"), (gridded, "QuantLinear"), (nn.Sequential(), "Sequential")):
        with pytest.raises(HwsimError, match=rf"^encoder: must be an nn.Sequential that ends with a .*, got {got}$"):
            exported({**given, "encoder": encoder})
    gru = sequential(gru=QuantGRU(5, 8), out=QuantLinear(8, 7))
    with pytest.raises(HwsimError, match=r"^encoder: must be a QuantLSTM or another module that .*, got QuantGRU$"):
        exported({**given, "encoder": gru})
    with pytest.raises(HwsimError, match=r"^prediction: must begin with a QuantEmbedding, got QuantLSTM$"):
        exported({**given, "prediction": sequential(l=QuantLSTM(6, 8), o=QuantLinear(8, 7))})
    both = sequential(e=QuantEmbedding(5, 6), l=QuantLSTM(6, 8, input=None, bidirectional=True), o=QuantLinear(16, 7))
    with pytest.raises(HwsimError, match=r"^prediction: a recurrent layer of one step must have one direction"):
        exported({**given, "prediction": both})
    with pytest.raises(HwsimError, match=r"^a recurrent layer of one step must have one direction"):
        both.l.step(torch.zeros(1, 6), both.l.start(1))
    with pytest.raises(HwsimError, match=r"^joint: must be a QuantActivation and a QuantLinear, got QuantLinear$"):
        exported({**given, "joint": sequential(o=QuantLinear(7, LABELS))})
    swish = sequential(a=QuantActivation("swish"), o=QuantLinear(7, LABELS))
    with pytest.raises(HwsimError, match=r"^joint: its function must be relu or tanh, got swish$"):
        exported({**given, "joint": swish})
    with pytest.raises(HwsimError, match=r"^combine must be add or multiply, got 'concatenate'$"):
        exported({**given, "combine": "concatenate"})
    for name in ("frames", "rows"):
        with pytest.raises(HwsimError, match=rf"^{name} must be at least 1, got 0$"):
            exported(given, **{name: 0})
    with pytest.raises(HwsimError, match=r"^a recognizer of 5 outputs must have 4 words, got 2$"):
        export_recognizer(given["encoder"], given["prediction"], given["joint"], WORDS[:2], frames=4, rows=4)
