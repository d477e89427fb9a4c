from __future__ import annotations

import subprocess
import sys

import pytest

import hwsim
from hwsim.arch import architecture_names
from hwsim.extract import parameter_counts
from hwsim.report.describe import describe_arch, describe_policy, describe_workload
from hwsim.report.paragraphs import decode_text
from hwsim.simulation import simulate
from tests.report.conftest import Text


@pytest.mark.parametrize("name", architecture_names())
def test_an_architecture_shows_every_number_and_its_origin(name: str, text: Text) -> None:
    arch = hwsim.load_arch(name)
    shown = text(describe_arch(arch))
    flat = " ".join(shown.split())
    assert max(map(len, shown.split("\n"))) <= 100
    assert "…" not in shown
    assert f"Published or derived ({len(arch.sources())} number" in flat
    assert f"Assumed ({len(arch.assumptions())} number" in flat
    assert all(" ".join(origin.text.split()) in flat for origin in (*arch.sources(), *arch.assumptions()))
    assert all(f"\n{fmt} " in shown for fmt in arch.native_formats)


def test_peaks_follow_from_the_geometry(text: Text) -> None:
    lines = text(describe_arch(hwsim.load_arch("rapid_4core"))).split("\n")
    row = next(line for line in lines if line.startswith("int4 "))
    assert row.split()[-6:-3] == ["8", "32,768", "104.9"]
    assert "Fallbacks  int8 runs as fp16, bf16 runs as fp16, int3 runs as int4, int1 runs as int2" in lines


@pytest.mark.parametrize("name", ["rnnt_swb300", "rnnt_mlperf"])
def test_a_workload_shows_counted_and_published_parameters(name: str, text: Text) -> None:
    workload = hwsim.load_workload(name)
    shown = text(describe_workload(workload))
    assert max(map(len, shown.split("\n"))) <= 100
    for component, count in parameter_counts(workload).items():
        published = workload.spec.published.parameters.get(component)
        row = next(line.split() for line in shown.split("\n") if line.startswith(f"{component} "))
        assert row[1:3] == [f"{count:,}", f"{published:,.0f}" if published else "–"]
    flat = " ".join(shown.split())
    assert " ".join(workload.spec.decode.source.split()) in flat
    assert " ".join(workload.spec.encoder.source.split()) in flat


def test_a_ctc_network_shows_its_head_and_no_search(text: Text) -> None:
    flat = " ".join(text(describe_workload(hwsim.load_workload("usm_600m"))).split())
    assert "Decoding none, scores of a CTC head; 3,000 frames of 10 ms (30 s)" in flat
    assert "head 16,793,600" in flat
    assert "acoustic 622,770,464 600,000,000 +3.8 % encoder + head" in flat
    assert "head = linear layer to 16384 outputs, log-softmax: Assumption" in flat


def test_what_is_decoded_of_a_ctc_network() -> None:
    result = simulate("rapid_4core", "usm_600m", "int4", frames=100)
    assert decode_text(result) == (
        "none, 16,384 scores of a CTC head for each encoder frame; 100 frames = 1 s of audio, 25 after the encoder"
    )


def test_an_exact_count_says_so(text: Text) -> None:
    assert "counts agree exactly" in text(describe_workload(hwsim.load_workload("rnnt_mlperf")))


def test_a_policy_shows_its_rules_in_order(text: Text) -> None:
    shown = text(describe_policy(hwsim.load_policy("int4-2021"), {"description": "what", "source": "where"})).split(
        "\n"
    )
    assert shown[:2] == ["Policy  int4-2021: what", "Source  where"]
    assert shown[-4:] == [
        "every layer     int4     int4         fp16   fp32",
        "*.embedding     fp16     fp16                fp16  may match none",
        "encoder.layer0  fp16     fp16         fp16   fp16",
        "joint.*         fp16     fp16         fp16   fp16",
    ]


def test_showing_needs_no_compiled_code() -> None:
    code = "import sys, hwsim.report.describe; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
