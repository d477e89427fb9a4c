"""Runs of fewer rows and of pieces: what must be kept, how many rows may be run, and the refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.reference.attention import context_mask, relative_scores
from hwsim.extract.conformer import AttentionSpec, ConformerSpec, conformer_block, position_encoding
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand

WIDTH, FRAMES = 6, 12


@given(st.integers(1, 9), st.integers(0, 4), st.integers(1, 5), st.integers(0, 3))
def test_the_mask_of_chunks_is_its_definition(frames: int, left: int, chunk: int, chunks_before: int) -> None:
    """Frame i sees its chunk and `left` frames before that, whichever of them are given as keys of the past."""
    past = min(left, chunks_before * chunk)
    mask = context_mask(frames, past + frames, left, None, chunk, past)
    for i in range(frames):
        first = i // chunk * chunk
        seen = {j for j in range(-past, frames) if first - left <= j < first + chunk}
        assert {j - past for j in np.flatnonzero(mask[i])} == seen
    if chunk == 1:
        assert np.array_equal(mask, context_mask(frames, past + frames, left, 0, None, past))


def test_scores_of_positions_with_keys_of_the_past() -> None:
    """Column r of 2 T - 1 = 9 stands for the distance 4 - r of a query to a key before it."""
    position = np.arange(2 * 9).reshape(1, 2, 9).astype(float)
    found = relative_scores(position, 5)
    for i in range(2):
        for j in range(5):
            assert found[0, i, j] == position[0, i, 4 - (i + 3 - j)]
    whole = np.arange(3 * 5).reshape(3, 5).astype(float)
    assert np.array_equal(relative_scores(whole), [[2, 3, 4], [6, 7, 8], [10, 11, 12]])


def block(spec: ConformerSpec, frames: int = FRAMES) -> Executable:
    """One block on reals; with relative positions its encodings are a constant."""
    b = TraceBuilder("t")
    x = b.tensor("x.features", Role.ACTIVATION, (frames, WIDTH))
    encoding = position_encoding(b, "position.encoding", WIDTH, frames) if spec.attention.relative else None
    conformer_block(b, "block", spec, x, frames, encoding)
    trace = b.build()
    rng = np.random.default_rng(0)
    codes = {t.name: rng.standard_normal(t.shape) for t in trace.tensors
             if t.role in (Role.WEIGHT, Role.BIAS) or t.name == "position.encoding"}  # fmt: skip
    return Executable(trace, codes, {})


def spec(relative: bool = False, causal: bool = True, **context: Any) -> ConformerSpec:
    return ConformerSpec(AttentionSpec(WIDTH, 2, relative=relative, **context), 4, 2, causal)


BOUNDED = [spec(left=5, right=0), spec(left=5, chunk=3), spec(True, left=5, chunk=3), spec(left=0, chunk=2)]
OTHERS = [spec(), spec(left=5, right=1), spec(right=0), spec(causal=False, left=5, right=0)]
X = np.random.default_rng(1).standard_normal((24, WIDTH))


def run(executable: Executable, x: np.ndarray, states: Any = None) -> dict[str, np.ndarray]:
    return executable.run({"x.features": x}, states=states)


@pytest.mark.parametrize("which", range(4))
def test_pieces_give_the_rows_of_a_longer_utterance(which: int) -> None:
    """Products of reals of other sizes differ in their last bits."""
    short = block(BOUNDED[which])
    states: dict[str, Any] = {}
    found = []
    for first, last in ((0, 6), (6, 12), (12, 18), (18, 21)):
        out = run(short, X[first:last], states)
        states = short.states_after(out, states)
        found.append(out["block.norm.out"])
    rows = np.concatenate(found)
    np.testing.assert_allclose(rows[:12], run(short, X[:12])["block.norm.out"], rtol=0, atol=1e-12)
    if not BOUNDED[which].attention.relative:  # their encodings are of one number of frames
        wanted = run(block(BOUNDED[which], 24), X[:21])["block.norm.out"]
        np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-12)
    assert (short.streams, short.exact, short.rows) == (True, False, FRAMES)
    assert short.chunk == (BOUNDED[which].attention.chunk or 1)


@pytest.mark.parametrize("which", range(4))
def test_what_sees_later_frames_or_all_before_keeps_nothing(which: int) -> None:
    executable = block(OTHERS[which])
    assert not executable.streams
    assert executable.rows == FRAMES
    assert executable.states_after(run(executable, X[:5])) == {}
    with pytest.raises(HwsimError, match=r"^unknown state 'block.attention.key.out'$"):
        run(executable, X[:5], {"block.attention.key.out": X[:2]})


def test_the_states_of_a_block() -> None:
    executable = block(spec(left=5, chunk=3))
    states = executable.states_after(run(executable, X[:3]))
    assert {name: array.shape for name, array in states.items()} == {
        "block.attention.key.out": (3, WIDTH), "block.attention.value.out": (3, WIDTH),
        "block.convolution.glu.out": (3, WIDTH),
    }  # fmt: skip
    later = executable.states_after(run(executable, X[3:9], states), states)
    assert [len(array) for array in later.values()] == [5, 5, 3]
    assert executable.states_after(run(executable, X[:3])).keys() == states.keys()
    said = r"^states must hold block.attention.key.out, block.attention.value.out, block.convolution.glu.out, got no "
    with pytest.raises(HwsimError, match=said + r"block.attention.value.out$"):
        run(executable, X[:3], {name: states[name] for name in states if "value" not in name})
    with pytest.raises(HwsimError, match=r"^block.attention.value.out: the state must be of shape \(3, 6\) after 3 "
                                         r"frames or more, got \(2, 6\)$"):  # fmt: skip
        run(executable, X[:3], {**states, "block.attention.value.out": X[:2]})
    with pytest.raises(HwsimError, match=r"^unknown state 'block.attention.keys'; nearest: block.attention.key.out"):
        run(executable, X[:3], {"block.attention.keys": X[:2]})
    with pytest.raises(HwsimError, match=r"^x.features: must have 1 to 12 rows, got 13$"):
        run(executable, X[:13])


def test_forced_tensors_of_a_shorter_utterance() -> None:
    executable = block(spec(left=5, right=0))
    out = run(executable, X[:7])
    forced = {name: out[name] for name in ("block.attention.scores", "block.attention.probabilities")}
    again = executable.run({"x.features": X[:7]}, forced=forced)
    assert np.array_equal(again["block.norm.out"], out["block.norm.out"])
    wrong = {"block.attention.scores": np.zeros((2, 7, 6))}
    with pytest.raises(HwsimError, match=r"^block.attention.scores: must be of shape \(2, 7, 7\), got \(2, 7, 6\)$"):
        executable.run({"x.features": X[:7]}, forced=wrong)


def of_two_lengths(keys: int) -> Trace:
    b = TraceBuilder("t")
    q, k = (b.tensor(f"a.{name}", Role.ACTIVATION, (rows, 4)) for name, rows in (("q", 3), ("k", keys)))
    scores = b.tensor("a.scores", Role.ACTIVATION, (2, 3, keys))
    b.op(Kind.MATMUL, "a", [Operand(q, 4), Operand(k, fixed=4 * keys)], [Operand(scores, 2 * keys)], m=3, k=2, n=keys,
         batch=2, function=Function.SCORES)  # fmt: skip
    return b.build()


def test_keys_of_another_length_fix_the_rows_unless_they_never_change() -> None:
    grids = {f"a.{name}": Quantizer(np.asarray(0.1), 8) for name in "qk"}
    assert Executable(of_two_lengths(5), {}, grids).rows is None
    assert Executable(of_two_lengths(3), {}, grids).rows == 3
    assert Executable(of_two_lengths(3), {}, grids).exact
    assert not Executable(of_two_lengths(3), {}, {}).exact
    constant = Executable(of_two_lengths(5), {"a.k": np.ones((5, 4), np.int8)}, grids)
    assert constant.rows == 3
    assert constant.run({"a.q": np.ones((2, 4), np.int8)})["a.scores"].shape == (2, 2, 5)
    queries = Executable(of_two_lengths(3), {"a.q": np.ones((3, 4), np.int8)}, grids)
    assert queries.rows is None


@pytest.mark.parametrize("chunk", [0, True, "3", 1.5])
def test_a_chunk_is_a_number_of_frames(chunk: Any) -> None:
    b = TraceBuilder("t")
    scores, out = (b.tensor(f"a.{name}", Role.ACTIVATION, (2, 3, 3)) for name in ("scores", "probabilities"))
    b.attributes("a", left=None, right=None, chunk=chunk)
    b.op(Kind.SOFTMAX, "a", [Operand(scores, 3)], [Operand(out, 3)], m=6, n=3, function=Function.PROBABILITIES)
    with pytest.raises(HwsimError, match=rf"must have a chunk of 1 frame or more, or None, got {chunk}$"):
        Executable(b.build(), {}, {})
