"""Streaming Conformer encoders: pieces against the whole, what is kept, the shipped recognizer on shipped speech."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from hwsim import catalogue
from hwsim.arch import load_arch
from hwsim.decode import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.recognize import Recognizer, load_recognizer
from hwsim.recognize.errors import word_errors
from hwsim.recognize.networks import EncoderStream
from hwsim.recognize.policy import policy_of
from hwsim.simulation import simulate
from hwsim.speech.dataset import Split, load_split

GREEDY = DecodeSettings("greedy", 1, lm="none")
BEAM = DecodeSettings("alsd", 4, lm="density-ratio")


@cache
def shipped() -> Recognizer:
    return load_recognizer(catalogue.data_folder("workloads") / "digits_conformer" / "int4.recognizer")


@cache
def speech() -> Split:
    return load_split(catalogue.data_folder("workloads") / "digits" / "test_mild.npz")


def in_pieces(encoder: Any, stack: int, x: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, list[int]]:
    """Rows of an utterance fed in pieces of these sizes in turn, and how many came at each."""
    stream, rows, at, turn = EncoderStream(encoder, stack), [], 0, 0
    while at < len(x):
        size = sizes[turn % len(sizes)]
        rows.append(stream.feed(x[at : at + size]))
        at, turn = at + size, turn + 1
    rows.append(stream.feed(stream.nothing, last=True))
    return np.concatenate(rows), [len(part) for part in rows]


@pytest.mark.parametrize("sizes", [(1,), (7,), (8,), (3, 50, 1, 22), (500,)], ids=str)
def test_rows_of_pieces_are_those_of_the_whole(sizes: tuple[int, ...]) -> None:
    """Bit for bit; a chunk of 4 frames, 8 of features, comes as soon as it is whole."""
    recognizer = shipped()
    encoder = recognizer.networks["encoder"]
    assert (recognizer.stack, encoder.chunk, encoder.streams, encoder.exact) == (2, 4, True, True)
    for index in (0, 5):
        x = np.asarray(speech()[index][0], np.float64)
        found, counts = in_pieces(encoder, 2, x, sizes)
        assert np.array_equal(found, recognizer.encode(x))
        fed = np.cumsum([sizes[turn % len(sizes)] for turn in range(len(counts) - 1)])
        assert np.cumsum(counts)[:-1].tolist() == [min(int(n), len(x)) // 8 * 4 for n in fed]


def test_what_is_kept_between_pieces_is_bounded() -> None:
    """16 keys and values of each block, 7 inputs of its convolution, however long the stream is."""
    encoder = shipped().networks["encoder"]
    x = np.asarray(speech()[0][0], np.float64)
    states: dict[str, Any] = {}
    for at in range(0, 48, 8):
        out = encoder.run({"encoder.input.features": x[at : at + 8]}, states=states)
        states = encoder.states_after(out, states)
        frames = at // 2 + 4
        for name, array in states.items():
            most = 7 if name.endswith("glu.out") else 16
            assert array.shape == (min(most, frames), 64), name
            assert array.dtype == np.int8
    parts = ("attention.key.out", "attention.value.out", "convolution.glu.out")
    assert set(states) == {f"encoder.layer{block}.{part}" for block in range(4) for part in parts}


def test_a_stream_of_the_shipped_recognizer_ends_with_the_words_of_the_whole() -> None:
    recognizer = shipped()
    for index in (1, 2):
        x = np.asarray(speech()[index][0], np.float64)
        whole, stream = recognizer.transcribe(x, BEAM, n_best=3), recognizer.stream(BEAM)
        for at in range(0, len(x), 10):
            stream.feed(x[at : at + 10])
        assert stream.finish(3).n_best == whole.n_best


def test_the_shipped_recognizer_hears_the_shipped_speech() -> None:
    """Voices that were not in training, noise at 10 dB; the bound is about twice the rate of the 200 utterances."""
    recognizer, split = shipped(), speech()
    assert recognizer.about["workload"] == "digits_conformer"
    assert recognizer.about["precision"] == "int4"
    figures = recognizer.about["networks"]["transducer"]["figures"]
    assert recognizer.about["networks"]["transducer"]["command"].startswith("hwsim train digits_conformer --network ")
    found = [recognizer.transcribe(np.asarray(split[i][0], np.float64), GREEDY).words for i in range(len(split))]
    rate = 100 * word_errors(split.transcripts.tolist(), found).rate
    assert 0 < figures["wer_test_mild"] < 8
    assert rate < 14


def test_the_formats_of_the_shipped_recognizer() -> None:
    """Products with weights take 4 bits, attention's own products 8, the depthwise convolution 8."""
    policy = policy_of(shipped(), "int4")
    block = "encoder.layer1"
    for layer in ("attention.query", "attention.output", "feed_forward1.down", "convolution.pointwise2"):
        resolved = policy.resolve(f"{block}.{layer}")
        assert (str(resolved.weights), str(resolved.activations)) == ("int4", "int4"), layer
    assert str(policy.resolve(f"{block}.attention").activations) == "int8"
    depthwise = policy.resolve(f"{block}.convolution.depthwise")
    assert (str(depthwise.weights), str(depthwise.activations)) == ("int8/channel", "int8")
    assert "residual sums are timed in fp16 and decoded on a grid of 16 bits" in policy.assumption


@pytest.mark.parametrize("arch", ["rapid_4core", "edge_npu"])
def test_what_was_decoded_is_timed(arch: str) -> None:
    recognizer = shipped()
    x = np.asarray(speech()[0][0], np.float64)
    found = recognizer.transcribe(x, BEAM)
    result = simulate(load_arch(arch), load_workload("digits_conformer"), policy_of(recognizer, "int4"),
                      frames=len(x), settings=BEAM, plan=found.schedule(BEAM))  # fmt: skip
    assert 0 < result.rtf < 0.01
    assert result.components["encoder"].macs > 4e6


def small(precision: str, **changes: Any) -> Any:
    """An encoder of random weights, for at most 24 frames."""
    pytest.importorskip("torch")
    from hwsim.train.emit_transducer import convert_transducer
    from hwsim.train.recipes import network_recipe
    from hwsim.train.recognizer import with_formats
    from tests.train.test_encoders import network_of

    part = convert_transducer(network_of(precision, **changes), 24, rows=2)["encoder"]
    return with_formats(part, network_recipe(precision)).executable()


@pytest.mark.parametrize("changes", [{}, {"positions": "relative"}, {"left": 0}, {"kernel": 1}, {"chunk": None,
                         "right": 0}, {"chunk": 5}], ids=str)  # fmt: skip
@pytest.mark.parametrize("precision", ["int8", "gq5", "fp16"])
def test_pieces_of_other_encoders(precision: str, changes: dict[str, Any]) -> None:
    """Utterances longer than the executable too. In FP16, sums depend on their length: one chunk runs at a time."""
    encoder = small(precision, **changes)
    assert encoder.exact == (precision != "fp16")
    for frames in (5, 24, 59):
        x = np.random.default_rng(frames).standard_normal((frames, 8))
        whole = EncoderStream(encoder, 2).feed(x, last=True)
        assert len(whole) == -(-frames // 2)
        assert np.array_equal(in_pieces(encoder, 2, x, (3, 11, 1))[0], whole)


def test_an_encoder_that_sees_later_frames_waits_for_the_end() -> None:
    encoder = small("int8", chunk=None, left=None, causal=False, positions="relative")
    assert not encoder.streams
    x = np.random.default_rng(0).standard_normal((21, 8))
    rows, counts = in_pieces(encoder, 2, x, (7,))
    assert counts == [0, 0, 0, 11]
    assert np.array_equal(rows, encoder.run({"encoder.input.features": x})["joint.encoder_projection.out"])
    stream = EncoderStream(encoder, 2)
    stream.feed(x)
    said = "^an utterance of an encoder that sees all of it must have at most 24 frames, got 28$"
    with pytest.raises(HwsimError, match=said):
        stream.feed(x[:7])


def test_relative_positions_need_an_executable_as_long_as_the_context() -> None:
    """Distances beyond its frames are in no encoding: 12 frames hold 9 + 3, and not 10 + 3."""
    assert small("int8", positions="relative", left=9).streams
    assert not small("int8", positions="relative", left=10).streams
    assert small("int8", left=10).streams
