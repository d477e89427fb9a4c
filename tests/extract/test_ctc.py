"""Networks with a CTC head: what follows the encoder, and the messages of a wrong file."""

from __future__ import annotations

import pytest

from hwsim.errors import HwsimError
from hwsim.extract import load_workload, parameter_counts
from hwsim.simulation import simulate
from hwsim.trace import Kind, TraceBuilder
from tests.extract.conftest import Change

WIDTHS = {"usm_2b": 1536, "usm_1b": 1024, "usm_600m": 1024}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_ctc_network_ends_in_a_head_over_the_frames_of_its_encoder(name: str) -> None:
    workload = load_workload(name)
    d, labels, frames = WIDTHS[name], 16384, 10
    counts = parameter_counts(workload)
    assert (workload.transduces, workload.labels, workload.language_models) == (False, labels, ())
    assert counts["head"] == (d + 1) * labels
    assert counts["acoustic"] == counts["encoder"] + counts["head"]
    b = TraceBuilder("t")
    (out,) = workload.emit_encoder(b, frames)
    trace = b.build()
    assert (trace.tensors[out].name, trace.tensors[out].shape) == ("head.output.out", (3, labels))
    assert [Kind(kind) for kind in trace.kind[-2:]] == [Kind.MATMUL, Kind.SOFTMAX]
    assert trace.totals("head").macs == 3 * d * labels
    assert trace.dep[trace.dep_ptr[-2] : trace.dep_ptr[-1]].tolist() == [len(trace) - 2]


def test_the_head_of_a_streaming_encoder_reads_all_of_its_frames(change: Change) -> None:
    path = change({"left: 128\n  right: 128": "left: 128\n  causal: true\n  chunk: 4", "layers: 24": "layers: 2"},
                  "usm_600m")  # fmt: skip
    workload = load_workload(path)
    b = TraceBuilder("t")
    (out,) = workload.emit_encoder(b, 37)
    trace = b.build()
    assert trace.tensors[out].shape == (10, 16384)
    assert trace.loop[-2:].tolist() == [-1, -1]


def test_a_ctc_network_has_no_transducer_definition() -> None:
    with pytest.raises(HwsimError, match=r"^usm_2b: must be a transducer, of family rnnt, got ctc$"):
        _ = load_workload("usm_2b").spec


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  outputs: 16384", "  outputs: 0", "head.outputs must be at least 1, got 0"),
        ("head:", "joint:", "joint must be a known key, got 'joint'; "),
        ("  frames: 3000", "  frames: 3000\n  beam: 4", "decode.beam must be a known key, got 'beam'; known: frames, "),
        ("last_channels: 32", "last_channels: 0", "encoder.subsampling.last_channels must be at least 1, got 0"),
    ],
)
def test_a_mistake_in_a_ctc_file_is_one_line(change: Change, old: str, new: str, said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        load_workload(change({old: new}, "usm_2b"))
    text = str(raised.value)
    assert f": {said}" in text
    assert "\n" not in text


def test_no_search_is_timed() -> None:
    """Components are the encoder and the head, whose MACs are those of its definition; the decoder changes nothing."""
    result = simulate("rapid_4core", "usm_600m", "int4", frames=100)
    assert set(result.components) == {"encoder", "head"}
    assert result.components["head"].macs == 25 * 1024 * 16384
    assert simulate("rapid_4core", "usm_600m", "int4", frames=100, decoder="alsd").cycles == result.cycles
    assert [text for text in result.assumptions if text.startswith("decode.")] == []
