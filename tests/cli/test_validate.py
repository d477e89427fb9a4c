"""`hwsim validate`: what it prints, its exit codes, and each mistake as one line."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hwsim.execute import projection
from hwsim.execute.executor import Executable
from hwsim.execute.store import save_executable
from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.numerics.calibration import BoundAware, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, TraceBuilder
from tests.cli.conftest import Call

Refused = Callable[..., str]
X = "encoder.input.features"
FORWARD, BACKWARD = "encoder.layer0.forward_h", "encoder.layer0.backward_h"
KNOWN = f"nearest: {FORWARD}, encoder.layer0.forward_c, {BACKWARD}"
FRAMES, INPUTS, CELLS = 30, 24, 16
PICKLE = "a pickle, which could run code and is not read"


class Files(NamedTuple):
    """A network, its inputs, its own outputs."""

    model: Path
    inputs: Path
    reference: Path


def network(weight_bits: int = 4, bits: int = 4) -> Executable:
    b = TraceBuilder("encoder")
    emit_encoder(b, EncoderSpec(input=INPUTS, layers=1, cells=CELLS, bidirectional=True, source="test"), FRAMES)
    trace, rng = b.build(), np.random.default_rng(0)
    codes: dict[str, Any] = {}
    grids: dict[str, Quantizer] = {}
    for t in trace.tensors:
        reals = rng.uniform(-2.5, 2.5, t.shape) / np.sqrt(CELLS)
        if t.role == Role.WEIGHT:
            grids[t.name] = Sawb(weight_bits).calibrate(reals)
            codes[t.name] = grids[t.name].quantize(reals)
        elif t.role == Role.BIAS:
            codes[t.name] = reals
        elif t.role == Role.ACTIVATION:
            grids[t.name] = BoundAware(1.25 if t.name == X else 1.0, bits).calibrate()
    return Executable(trace, codes, grids)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("validate")
    found = Files(folder / "small.hwsim", folder / "x.npz", folder / "y.npz")
    executable = network()
    save_executable(executable, found.model)
    x = {X: np.random.default_rng(1).standard_normal((FRAMES, INPUTS))}
    np.savez(found.inputs, **x)
    outputs = executable.run(x)
    np.savez(found.reference, **{name: outputs[name] for name in (FORWARD, BACKWARD)})
    return found


def changed(files: Files, path: Path, delta: int = 1) -> Path:
    """The reference with one code changed towards zero."""
    arrays = dict(np.load(files.reference))
    code = arrays[FORWARD][20, 3]
    arrays[FORWARD][20, 3] = code - delta if code > 0 else code + delta
    np.savez(path, **arrays)
    return path


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.startswith("encoder.")]


def test_against_the_readable_reference(call: Call, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files.model.parent)
    code, out, err = call("validate", "small.hwsim", "--inputs", "x.npz")
    assert (code, err) == (0, "")
    assert (
        out.splitlines()[:4]
        == [
            "Model      small.hwsim: encoder, 122 operations, 2 tensors",
            "Reference  the readable NumPy reference, by the rules of training",
            "Profile    training: exact sums",
            "Tier       T0, against another integer implementation: no mismatching code",
        ]
        or len(str(files.model)) > 50
    )
    assert "Free-running: every layer reads what the executor computed before it\n" in out
    assert rows(out) == [[name, "480", "0", "<", "6.3e-03", "0", "–", "–", "equal"] for name in (FORWARD, BACKWARD)]
    assert out.endswith("\nPassed: 0 of 960 codes, < 3.1e-03 at 95 %\n")
    assert max(map(len, out.splitlines())) <= 100


def test_against_a_file_in_both_modes(call: Call, files: Files) -> None:
    words = ("validate", files.model, "--inputs", files.inputs, "--reference", files.reference, "--mode", "both")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert "Tier       T1, against the training graph in float64: no mismatching code\n" in out
    assert "\nTeacher-forced: every layer and every recurrent step reads the reference\n" in out
    assert len(rows(out)) == 4
    assert out.endswith(
        "\nPassed, free-running: 0 of 960 codes, < 3.1e-03 at 95 %\n"
        "Passed, teacher-forced: 0 of 960 codes, < 3.1e-03 at 95 %\n"
    )


def test_a_breach_has_exit_code_1(call: Call, files: Files, tmp_path: Path) -> None:
    reference = changed(files, tmp_path / "y.npz")
    code, out, err = call("validate", files.model, "--inputs", files.inputs, "--reference", reference)
    assert (code, err) == (1, "")
    (forward, backward) = rows(out)[:2]
    assert forward[:6] == [FORWARD, "480", "1", "2.1e-03", "1", "20,3"]
    assert 0 < float(forward[6]) <= 1
    assert (forward[7], backward[-1]) == ("BROKEN", "equal")
    assert f"\nBreaches\n  - {FORWARD}, free-running: T1 broken: max |delta| 1, first at (20, 3), at most" in out
    assert out.endswith("\nFAILED: 1 of 960 codes\n")


def test_a_wrong_kernel_is_found(call: Call, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    right = projection.matmul
    monkeypatch.setattr(projection, "matmul", lambda codes, packed: right(codes, packed) + 5)
    code, out, err = call("validate", files.model, "--inputs", files.inputs)
    assert (code, err) == (1, "")
    assert {row[-1] for row in rows(out)} == {"BROKEN"}


def test_wrongly_packed_weights_are_found(call: Call, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    right = projection.pack

    def off_by_one(codes: Any, *args: Any, **more: Any) -> Any:
        return right(np.where(codes > 0, codes - 1, codes), *args, **more)

    monkeypatch.setattr(projection, "pack", off_by_one)
    for words in ((), ("--against", "torch", "--tier", "T1")):
        if words:
            pytest.importorskip("torch")
        code, out, _ = call("validate", files.model, "--inputs", files.inputs, *words)
        assert code == 1
        assert {row[-1] for row in rows(out)} == {"BROKEN"}


def test_t3_demands_nothing(call: Call, files: Files, tmp_path: Path) -> None:
    words = ("--reference", changed(files, tmp_path / "y.npz", 2), "--tier", "T3")
    code, out, _ = call("validate", files.model, "--inputs", files.inputs, *words)
    assert code == 0
    assert rows(out)[0][-1] == "differs"
    assert out.endswith("\nPassed: 1 of 960 codes\n")


def test_t2_counts_and_looks_at_ties(call: Call, files: Files, tmp_path: Path) -> None:
    words = ("--reference", changed(files, tmp_path / "y.npz"), "--tier", "T2")
    code, out, _ = call("validate", files.model, "--inputs", files.inputs, *words)
    assert code == 1
    assert "Teacher-forced" in out
    assert "T2 broken, more than 0.0001 of the codes" in " ".join(out.split())


@pytest.mark.parametrize(("bits", "passes"), [(4, True), (8, False)])
def test_a_narrow_accumulator_holds_int4_and_not_int8(bits: int, passes: bool, call: Call, files: Files,
                                                      tmp_path: Path) -> None:  # fmt: skip
    save_executable(network(bits, bits), tmp_path / "e")
    code, out, _ = call("validate", tmp_path / "e", "--inputs", files.inputs, "--profile", "rapid")
    assert code == (0 if passes else 1)
    assert "Profile    rapid: a 16-bit accumulator that saturates, cleared every 64 products\n" in out


def test_what_a_profile_does_to_products_is_said(call: Call, files: Files) -> None:
    code, out, _ = call("validate", files.model, "--inputs", files.inputs, "--profile", "tflite-ruy")
    assert code == 0
    assert (
        "tflite-ruy: a 32-bit accumulator that wraps; products with a grid have integer biases and one multiplier "
        "(fixed point, double, ties half up)"
    ) in " ".join(out.split())


def test_json_has_counts_and_hashes(call: Call, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    out = call("validate", files.model, "--inputs", files.inputs, "--json", path).out
    assert out.endswith(f"\n\nWrote {path}\n")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["tier"], content["passed"], content["profile"]) == ("T0", True, "training")
    assert content["layers"][0]["count"] == "0 of 480, < 6.3e-03 at 95 %"
    for name in ("model", "inputs"):
        file = getattr(files, name)
        assert content[name] == {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert "reference" not in content


def test_a_trained_module_and_what_it_recorded(call: Call, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from hwsim.train import QuantLinear, QuantLSTM, export, record

    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("encoder", QuantLSTM(8, 12))
    module.add_module("joint", QuantLinear(12, 6, weight=Sawb(), output=BoundAware(4.0, 8)))
    module = module.double()
    x = {X: np.random.default_rng(0).standard_normal((20, 8))}
    save_executable(export(module, 20, "small"), tmp_path / "e")
    np.savez(tmp_path / "x.npz", **x)
    np.savez(tmp_path / "y.npz", **record(module, x).codes)
    words = ("--inputs", tmp_path / "x.npz", "--reference", tmp_path / "y.npz", "--mode", "both")
    code, out, _ = call("validate", tmp_path / "e", *words)
    assert code == 0, out
    assert [row[0] for row in rows(out)] == ["encoder.layer0.h"] * 2
    assert out.count("\njoint.out ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tier", "T4"), "--tier must be T0, T1, T2 or T3, got 'T4'"),
        (("--mode", "free"), "--mode must be free-running, teacher-forced or both, got 'free'"),
        (("--mode", "teacher"), "--mode must be free-running, teacher-forced or both, got 'teacher';"
                                " nearest: teacher-forced"),
        (("--profile", "rapit"), "unknown semantics profile 'rapit'; nearest: rapid"),
        (("--profile", "tflite"), "unknown semantics profile 'tflite'; nearest: tflite-ruy, tflite-lstm,"
                                  " tflite-xnnpack"),
    ],
)  # fmt: skip
def test_options_are_refused(words: tuple[str, ...], message: str, refused: Refused, files: Files) -> None:
    assert refused("validate", files.model, "--inputs", files.inputs, *words) == message


def test_missing_words_and_files_are_refused(refused: Refused, files: Files, tmp_path: Path) -> None:
    no = tmp_path / "no"
    assert refused("validate") == "missing argument 'MODEL' (see hwsim validate --help)"
    assert refused("validate", files.model) == "missing option '--inputs' (see hwsim validate --help)"
    said = "got No such file or directory"
    assert refused("validate", no, "--inputs", files.inputs) == f"{no}: must be an executable file, {said}"
    assert refused("validate", files.model, "--inputs", no) == f"{no}: must be an npz file, {said}"
    words = ("validate", files.model, "--inputs", files.inputs, "--reference", no)
    assert refused(*words) == f"{no}: must be an npz file, {said}"
    assert refused(*words[:4], "--json", tmp_path) == f"{tmp_path}: must be a file to write to, got a folder"


def test_another_model_is_refused(refused: Refused, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(files.model.read_bytes()[:-1])
    said = "must be a whole and unaltered executable file, got one that fails its checksum"
    assert refused("validate", path, "--inputs", files.inputs) == f"{path}: {said}"
    path.write_bytes(pickle.dumps(1))
    assert refused("validate", path, "--inputs", files.inputs) == f"{path}: must be an executable file, got {PICKLE}"


GOOD = np.zeros((FRAMES, INPUTS))


def with_nan() -> Any:
    x = GOOD.copy()
    x[7, 5] = np.nan
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, f"must hold the array {X}"),
        ({"encoder.input.feature": GOOD}, f"'encoder.input.feature' must be an input of the network; nearest: {X}"),
        ({X: GOOD, "labels": GOOD}, f"'labels' must be an input of the network; known: {X}"),
        ({X: GOOD[1:]}, f"{X} must be of shape (30, 24), got (29, 24)"),
        ({X: GOOD[0]}, f"{X} must be of shape (30, 24), got (24,)"),
        ({X: with_nan()}, f"{X} must be finite, got nan at (7, 5)"),
        ({X: GOOD - np.inf}, f"{X} must be finite, got -inf at (0, 0)"),
        ({X: GOOD.astype(str)}, f"{X} must be integers or reals, got <U32"),
        ({X: GOOD * 1j}, f"{X} must be integers or reals, got complex128"),
        ({X: GOOD.astype(object)}, f"{X} must be an array of numbers, got {PICKLE}"),
    ],
)
def test_inputs_are_refused(arrays: dict[str, Any], message: str, refused: Refused, files: Files,
                            tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    assert refused("validate", files.model, "--inputs", path) == f"{path}: {message}"


def test_input_codes_out_of_range_are_refused(refused: Refused, files: Files, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{X: np.full((FRAMES, INPUTS), 9)})
    message = refused("validate", files.model, "--inputs", tmp_path / "x.npz")
    assert message == f"{X} must be -7 to 7, got 9"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be an npz file, got something else"),
        (pickle.dumps({X: 1}), f"must be an npz file, got {PICKLE}"),
        (b"PK\x03\x04 and no more", "must be a whole npz file, got File is not a zip file"),
    ],
)
def test_another_file_of_inputs_is_refused(content: bytes, said: str, refused: Refused, files: Files,
                                           tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    assert refused("validate", files.model, "--inputs", path) == f"{path}: {said}"


def test_an_altered_npz_is_refused(refused: Refused, files: Files, tmp_path: Path) -> None:
    path, content = tmp_path / "x.npz", bytearray(files.inputs.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    said = f"must be a whole npz file, got Bad CRC-32 for file '{X}.npy'"
    assert refused("validate", files.model, "--inputs", path) == f"{path}: {said}"


CODES = np.zeros((FRAMES, CELLS), np.int8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"encoder.layer0.foward_h": CODES},
         f"'encoder.layer0.foward_h' must be an output of the network; {KNOWN}"),
        ({"lm.h": CODES}, f"'lm.h' must be an output of the network; known: {BACKWARD[:-1]}c, {BACKWARD},"
                          f" {FORWARD[:-1]}c, {FORWARD}"),
        ({FORWARD: CODES[1:]}, f"{FORWARD} must be of shape (30, 16), got (29, 16)"),
        ({FORWARD: CODES + 8}, f"{FORWARD} must be -7 to 7, got 8"),
        ({FORWARD: CODES * 0.5}, f"{FORWARD} must be integers, got float64"),
        ({FORWARD: CODES * np.nan}, f"{FORWARD} must be finite, got nan at (0, 0)"),
        ({FORWARD: CODES, f"{FORWARD[:-1]}c": CODES[:1]},
         f"{FORWARD[:-1]}c must be of shape (30, 16), got (1, 16)"),
    ],
)  # fmt: skip
def test_references_are_refused(arrays: dict[str, Any], message: str, refused: Refused, files: Files,
                                tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "y.npz"
    np.savez(path, **arrays)
    words = ("--reference", path, "--mode", "both")
    assert refused("validate", files.model, "--inputs", files.inputs, *words) == f"{path}: {message}"


def test_an_empty_reference_is_refused(refused: Refused, files: Files, tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz")
    message = refused("validate", files.model, "--inputs", files.inputs, "--reference", tmp_path / "y.npz")
    assert message == "the reference must hold codes of at least one output for T1, got none"
