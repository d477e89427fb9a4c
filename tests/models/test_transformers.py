"""Networks that nobody here wrote: classes of Hugging Face transformers in small sizes, with random weights.

They run when asked for, `make test-models`, because the package is large.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.extract.graph.nodes import Graph, NodeKind  # noqa: E402
from hwsim.extract.onnx import read_structure  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import counted_macs, kinds, layers, macs, parameters  # noqa: E402

pytestmark = pytest.mark.models

ENCODER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
           "subsampling_conv_channels": 16, "num_mel_bins": 80}  # fmt: skip
WAV2VEC = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16, 16),
    "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "vocab_size": 20,
}  # fmt: skip
MELS = torch.zeros(1, 80, 80)
ATTENTION = pytest.mark.parametrize("attention", ["eager", "sdpa"])


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("transformers")


def read(module: torch.nn.Module, *inputs: Any, exact: bool = True) -> Graph:
    """The graph, whose parameters are the module's; with `exact`, whose products are those of PyTorch's counter."""
    graph = read_module(module, inputs, unused="refuse" if exact else "note")
    assert graph.parameters == parameters(module)
    recurrent = sum(kinds(graph)[kind] for kind in ("lstm", "gru"))
    assert recurrent or macs(graph) == counted_macs(module, *inputs)
    return graph


def configured(config: Any, attention: str) -> Any:
    config._attn_implementation = attention
    return config


@ATTENTION
def test_the_encoder_of_parakeet(hub: Any, attention: str) -> None:
    graph = read(hub.ParakeetEncoder(configured(hub.ParakeetEncoderConfig(**ENCODER), attention)), MELS)
    assert graph.values[graph.outputs[0]].shape == (1, 10, 64)
    assert kinds(graph)["softmax"] == 2
    assert {"layers.0.self_attn.relative_k_proj", "layers.1.conv.depthwise_conv", "subsampling.linear"} < set(
        layers(graph)
    )


def test_parakeet_with_a_mask_of_lengths(hub: Any) -> None:
    graph = read(hub.ParakeetEncoder(hub.ParakeetEncoderConfig(**ENCODER)), MELS, torch.ones(1, 80, dtype=torch.long))
    assert graph.values[graph.inputs[1]].integer


def test_parakeet_with_ctc(hub: Any) -> None:
    config = hub.ParakeetCTCConfig(encoder_config=ENCODER, vocab_size=33, pad_token_id=32)
    graph = read(hub.ParakeetForCTC(config), MELS)
    assert graph.values[graph.outputs[0]].shape == (1, 10, 33)


@pytest.mark.parametrize("kind", ["RNNT", "TDT"])
def test_the_parts_of_a_parakeet_transducer(hub: Any, kind: str) -> None:
    config = getattr(hub, f"Parakeet{kind}Config")(
        encoder_config=ENCODER, vocab_size=33, decoder_hidden_size=48, num_decoder_layers=2, blank_token_id=32
    )
    model = getattr(hub, f"ParakeetFor{kind}")(config)
    encoder = read(model.encoder, MELS)
    projector = read(model.encoder_projector, torch.zeros(1, 10, 64))
    prediction = read(model.decoder, torch.zeros(1, 1, dtype=torch.long))
    joint = read(model.joint, torch.zeros(1, 1, 48), torch.zeros(1, 1, 48))
    parts = (encoder, projector, prediction, joint)
    assert sum(graph.parameters for graph in parts) == parameters(model)
    assert layers(prediction) == ["embedding", "lstm.layer0", "lstm.layer1", "decoder_projector"]
    assert macs(prediction) == 2 * 4 * 48 * (48 + 48) + 48 * 48
    assert kinds(joint) == {"elementwise": 2, "linear": 1}
    assert macs(joint) == 48 * (33 + (len(config.durations) if kind == "TDT" else 0))


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_wav2vec2_conformer(hub: Any, positions: str) -> None:
    config = hub.Wav2Vec2ConformerConfig(**WAV2VEC, position_embeddings_type=positions)
    module = hub.Wav2Vec2ConformerForCTC(config)
    graph = read(module, torch.zeros(1, 800), exact=False)
    assert graph.values[graph.outputs[0]].shape == (1, 79, 20)
    (unread,) = (note for note in graph.notes if note.startswith("not read: "))
    assert "masked_spec_embed" in unread


@ATTENTION
def test_wav2vec2(hub: Any, attention: str) -> None:
    graph = read(
        hub.Wav2Vec2ForCTC(configured(hub.Wav2Vec2Config(**WAV2VEC), attention)), torch.zeros(1, 800), exact=False
    )
    (positions,) = (node for node in graph.nodes if node.kind == NodeKind.CONV and node["groups"] == 4)
    assert (positions["taps"], positions["inputs"], positions["padding"]) == (16, 32, [(8, 8)])
    assert any("original1 is computed once from" in note for note in graph.notes)


@ATTENTION
def test_the_encoder_of_whisper(hub: Any, attention: str) -> None:
    config = hub.WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
                               num_mel_bins=80, max_source_positions=50)  # fmt: skip
    module = hub.models.whisper.modeling_whisper.WhisperEncoder(configured(config, attention))
    graph = read(module, torch.zeros(1, 80, 100))
    assert math.prod(graph.values[graph.outputs[0]].shape) == 50 * 32
    assert kinds(graph)["matmul"] == 4


def through_onnx(module: torch.nn.Module, folder: Path, *inputs: Any) -> Graph:
    """The graph of the file that torch's tracing exporter writes."""
    path = folder / "model.onnx"
    torch.onnx.export(module.eval(), inputs, str(path), dynamo=False, input_names=["features"])
    return read_structure(path)


@pytest.mark.filterwarnings("ignore")
def test_the_encoder_of_whisper_through_onnx(hub: Any, tmp_path: Path) -> None:
    config = hub.WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
                               num_mel_bins=80, max_source_positions=50)  # fmt: skip
    module = hub.models.whisper.modeling_whisper.WhisperEncoder(configured(config, "eager"))
    scattered(module)
    graph, inputs = through_onnx(module, tmp_path, torch.zeros(1, 80, 100)), torch.zeros(1, 80, 100)
    assert macs(graph) == macs(read_module(module, (inputs,)))
    assert graph.parameters == parameters(module)


@pytest.mark.filterwarnings("ignore")
def test_the_encoder_of_parakeet_through_onnx(hub: Any, tmp_path: Path) -> None:
    module = hub.ParakeetEncoder(configured(hub.ParakeetEncoderConfig(**ENCODER), "eager"))
    scattered(module)
    graph = through_onnx(module, tmp_path, MELS)
    assert macs(graph) == macs(read_module(module, (MELS,)))
    merged = [norm for norm in module.modules() if isinstance(norm, torch.nn.BatchNorm1d)]
    # The exporter merges each batch norm into the convolution in front: its scale and offset are gone from the file.
    assert graph.parameters == parameters(module) - sum(2 * norm.num_features for norm in merged)


def scattered(module: torch.nn.Module) -> None:
    """Random values everywhere: equal parameters would be written once."""
    with torch.no_grad():
        for value in module.parameters():
            value.normal_()
