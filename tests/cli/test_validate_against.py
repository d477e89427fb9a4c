"""`hwsim validate --against`, ONNX files and catalogue networks: reports, JSON, exit codes, and each mistake."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hwsim.execute.store import save_executable
from tests.cli.conftest import Call
from tests.validate import networks

Refused = Callable[..., str]


class Files(NamedTuple):
    """A network of products, one LSTM, and their inputs."""

    mlp: Path
    mlp_x: Path
    lstm: Path
    lstm_x: Path
    head: Path
    head_x: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("against")
    paths = []
    for name in ("mlp", "lstm", "head"):
        executable, inputs = networks.CASES[name]()
        paths += [folder / f"{name}.hwsim", folder / f"{name}.npz"]
        save_executable(executable, paths[-2])
        np.savez(paths[-1], **inputs)
    return Files(*paths)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_torch_prints_t2_with_its_ties(call: Call, files: Files, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    executable, inputs = networks.tied()
    save_executable(executable, tmp_path / "e")
    np.savez(tmp_path / "x.npz", **inputs)
    code, out, err = call("validate", tmp_path / "e", "--inputs", tmp_path / "x.npz", "--against", "torch")
    assert (code, err) == (0, "")
    assert f"Reference PyTorch {torch.__version__} in float32: dequantized weights" in flat(out)
    assert "Tier T2, against the framework's own float32" in flat(out)
    assert "Teacher-forced" in out
    code, out, _ = call("validate", files.lstm, "--inputs", files.lstm_x, "--against", "torch", "--tier", "T1")
    assert code == 0
    assert "in float64" in flat(out)
    assert "Tier T1, against the training graph in float64" in flat(out)
    assert "Free-running" in out


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_runtimes(runtime: str, call: Call, files: Files, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "report.json"
    code, out, err = call("validate", files.mlp, "--inputs", files.mlp_x, "--against", runtime, "--json", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-3] == "Passed: 0 of 20,800 codes, < 1.4e-04 at 95 %"
    assert "scales are rounded to float32 on both sides" in flat(out)
    content = json.loads(path.read_text(encoding="utf-8"))
    profile = {"onnxruntime": "onnx", "litert": "tflite-xnnpack"}[runtime]
    assert (content["tier"], content["passed"], content["profile"]) == ("T0", True, profile)
    source = content["against"]
    assert (source["oracle"], source["profile"], source["not_compared"], source["partly"]) == (runtime, profile, {}, {})
    assert source["version"][0].isdigit()
    assert max(map(len, out.splitlines())) <= 100


def test_what_is_not_compared_is_listed(call: Call, files: Files) -> None:
    pytest.importorskip("ai_edge_litert")
    code, out, _ = call("validate", files.head, "--inputs", files.head_x, "--against", "litert")
    assert code == 0
    assert "Not compared - head.out: no integer product with weights; computed by the readable" in flat(out)
    assert "head.out" not in [line.split()[0] for line in out.splitlines() if line]
    pytest.importorskip("onnxruntime")
    out = call("validate", files.lstm, "--inputs", files.lstm_x, "--against", "onnxruntime").out
    said = "Compared in part - net.forward_h, net.backward_h: MatMulInteger sums; the rest by the readable reference"
    assert said in flat(out)


def test_a_breach_has_exit_code_1(call: Call, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from hwsim.validate.oracles import onnxruntime_products

    bias_codes = onnxruntime_products.bias_codes
    monkeypatch.setattr(onnxruntime_products, "bias_codes", lambda b, scale: bias_codes(b, scale) + 9)
    code, out, err = call("validate", files.mlp, "--inputs", files.mlp_x, "--against", "onnxruntime")
    assert (code, err) == (1, "")
    assert "Breaches\n  - layer0.out, free-running: T0 broken: max |delta| 1, first at " in out
    assert "FAILED: " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--against", "tourch"), "--against must be torch, onnxruntime or litert, got 'tourch'; nearest: torch"),
        (("--against", "torch", "--reference", "y.npz"),
         "--reference and --against must not both be given, got y.npz and torch"),
        (("--against", "torch", "--tier", "T0"),
         "tier must be T1, T2 or T3 against torch, which computes reals, got T0"),
        (("--against", "onnxruntime", "--profile", "rapid"), "profile must be onnx against onnxruntime, got rapid"),
        (("--against", "litert", "--profile", "onnx"),
         "profile must be tflite-xnnpack or tflite-ruy or tflite-reference or tflite-lstm against litert, got onnx"),
        (("--bind", "T=3"), "--bind must go with an ONNX file, got {mlp}"),
        (("--weights", "w.safetensors"), "--weights must go with a network of the catalogue, got the file {mlp}"),
        (("--precision", "int4"), "--precision must go with a network of the catalogue, got the file {mlp}"),
    ],
)  # fmt: skip
def test_options_are_refused(words: tuple[str, ...], message: str, refused: Refused, files: Files) -> None:
    for package in ("torch", "onnx", "onnxruntime", "ai_edge_litert"):
        pytest.importorskip(package)
    said = refused("validate", files.mlp, "--inputs", files.mlp_x, *words)
    assert said == message.format(mlp=files.mlp)


@pytest.mark.parametrize(
    ("runtime", "package", "message"),
    [
        ("torch", "torch", "--against torch needs PyTorch: install hwsim[train]"),
        ("onnxruntime", "onnxruntime", "--against onnxruntime needs onnx and onnxruntime: install hwsim[onnx]"),
        ("litert", "ai_edge_litert", "--against litert needs ai-edge-litert: install hwsim[litert]"),
    ],
)
def test_a_missing_package_is_named(runtime: str, package: str, message: str, refused: Refused, files: Files,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    assert refused("validate", files.mlp, "--inputs", files.mlp_x, "--against", runtime) == message


def weights(folder: Path) -> tuple[Path, Path]:
    """A small network file, its inputs, and beside them float weights in PyTorch's names."""
    pytest.importorskip("safetensors")
    from safetensors.numpy import save_file

    from hwsim.extract import load_workload
    from tests.validate.test_catalogue import FEATURES, NETWORK, inputs, reals

    (folder / "small.yaml").write_text(NETWORK, encoding="utf-8")
    given: dict[str, Any] = inputs(FEATURES)
    np.savez(folder / "x.npz", **given)
    save_file(reals(load_workload(folder / "small.yaml"), given, of_torch=True), folder / "w.safetensors")
    return folder / "small.yaml", folder / "x.npz"


def test_a_catalogue_network(call: Call, tmp_path: Path) -> None:
    model, x = weights(tmp_path)
    words = ("--weights", tmp_path / "w.safetensors", "--precision", "int4", "--json", tmp_path / "r.json")
    code, out, err = call("validate", model, "--inputs", x, *words)
    assert (code, err) == (0, "")
    assert f"Assumed weights of {tmp_path / 'w.safetensors'} in the precision int4; weights of int4 by" in flat(out)
    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert content["precision"] == "int4"
    assert "hidden states bound-aware, bound 1" in content["assumed"]
    assert set(content["weights"]) == {"path", "sha256"}


def test_words_of_a_catalogue_network_are_refused(refused: Refused, tmp_path: Path) -> None:
    model, x = weights(tmp_path)
    given = ("--inputs", x)
    w = ("--weights", tmp_path / "w.safetensors")
    for name, shown in (("rnnt_swb300", "rnnt_swb300"), (model, "small")):
        said = refused("validate", name, *given)
        assert said == f"{shown} must be given its weights, a safetensors file: --weights FILE"
    assert (
        refused("validate", model, *given, *w) == "small must be given a precision policy, such as int4: --precision P"
    )
    assert refused("validate", "rnnt_swb30", *given, *w).startswith(
        "unknown workload 'rnnt_swb30'; nearest: rnnt_swb300, tdnnf_swbd, rnnt_gq"
    )
    said = refused("validate", model, *given, *w, "--precision", "int4", "--bind", "T=3")
    assert said == f"--bind must go with an ONNX file, got {model}"
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04 more")
    said = refused("validate", model, *given, "--weights", tmp_path / "w.pt", "--precision", "int4")
    assert said == (
        f"{tmp_path / 'w.pt'}: must be a safetensors file, got a zip that torch.save wrote, which could run code and is"
        " not read"
    )
    np.savez(tmp_path / "empty.npz")
    said = refused("validate", model, "--inputs", tmp_path / "empty.npz", *w, "--precision", "int4")
    assert (
        said == f"{tmp_path / 'empty.npz'}: must hold an input of small, such as encoder.input.features, got no array"
    )


def test_an_onnx_file(call: Call, refused: Refused, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.validate.test_onnx_file import features, write

    model, x = write(tmp_path / "m.onnx", qlinear=True), tmp_path / "x.npz"
    np.savez(x, **features())
    report = tmp_path / "r.json"
    code, out, err = call("validate", model, "--inputs", x, "--bind", "T=50", "--json", report)
    assert (code, err) == (0, "")
    assert json.loads(report.read_text(encoding="utf-8"))["bind"] == {"T": 50}
    assert "as it stands" in flat(out)
    assert "\nPassed: 0 of 1,600 codes, < 1.9e-03 at 95 %\n" in out
    words = ("--bind", "T=50", "--against", "onnxruntime", "--profile", "tflite-reference")
    assert call("validate", model, "--inputs", x, *words).code == 1
    assert refused("validate", model, "--inputs", x).endswith("bind T=<size>")
