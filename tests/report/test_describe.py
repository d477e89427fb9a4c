from __future__ import annotations

import subprocess
import sys

import pytest

import hwsim
from hwsim.arch import architecture_names
from hwsim.decode.search import default_settings
from hwsim.extract import parameter_counts
from hwsim.report.describe import describe_arch, describe_policy, describe_workload
from hwsim.report.facts import decode_totals
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


def test_a_hybrid_network_shows_both_counts_and_what_is_outside(text: Text) -> None:
    workload = hwsim.load_workload("tdnnf_swbd")
    flat = " ".join(text(describe_workload(workload)).split())
    assert "acoustic 16,363,922 – encoder + head" in flat
    assert "acoustic_training 18,702,628 18,702,628 0 % with the branch that only training has" in flat
    assert "counts agree exactly" in flat
    assert ("Decoding in a graph on the host, which is not timed; 304 frames of 10 ms (3.04 s); 20 hypotheses rescored,"
            " 3 words per second") in flat  # fmt: skip
    assert "head = linear layer to 6034 outputs, no softmax: the Kaldi recipe" in flat
    assert ("rescoring_lm = 6 Transformer blocks of width 512, 8 heads, feed-forward 768, 30000 words, output layer"
            " tied to the embedding: arXiv 2206.11643") in flat  # fmt: skip


def test_a_language_model_alone_is_shown_in_words(text: Text) -> None:
    flat = " ".join(text(describe_workload(hwsim.load_workload("transformer_lm_30k"))).split())
    assert "Decoding none, scores of 20 hypotheses of 10 words (3.333 s of speech)" in flat
    assert "lm 26,403,328 26,500,000 -0.4 %" in flat
    assert "lm = 6 Transformer blocks of width 512" in flat
    assert "acoustic" not in flat.split("Parts")[0]


def test_what_is_decoded_of_a_hybrid_network() -> None:
    network = hwsim.load_workload("tdnnf_swbd")
    sent = ("none, 6,034 acoustic scores for each encoder frame, sent to the host, whose search in a decoding graph is"
            " not timed; ")  # fmt: skip
    length = "; 90 frames = 0.9 s of audio, 30 after the encoder"
    for count, said in (
        (None, "20 hypotheses rescored by the language model"), ("1", "1 hypothesis rescored by the language model"),
        ("0", "no rescoring"),
    ):  # fmt: skip
        settings = default_settings(network, changes={} if count is None else {"n_best": count})
        result = simulate("edge_npu", network, "int4", frames=90, settings=settings)
        assert decode_text(result) == sent + said + length
    alone = simulate("edge_npu", "transformer_lm_30k", "int4", frames=6)
    assert decode_text(alone) == "none, scores of 20 hypotheses; 6 words = 2 s of audio"


def test_what_is_decoded_of_a_ctc_network() -> None:
    result = simulate("rapid_4core", "usm_600m", "int4", frames=100)
    assert decode_text(result) == (
        "none, 16,384 scores of a CTC head for each encoder frame; 100 frames = 1 s of audio, 25 after the encoder"
    )


def test_two_encoders_are_shown_each_with_its_counts(text: Text) -> None:
    shown = " ".join(text(describe_workload(hwsim.load_workload("conformer_production"))).split())
    assert "3.5 labels per second; two passes, both of them searched alike" in shown
    assert "encoder_first 47,071,248 47,000,000 +0.2 %" in shown
    assert "7 Conformer blocks of width 552 on 512 features, no subsampling, 8 heads" in shown
    assert "no attention in the first 3 blocks, 23 frames of left context, 0 frames of right context" in shown
    assert "encoders = cascaded: " in shown
    shown = " ".join(text(describe_workload(hwsim.load_workload("rnnt_bifocal_gq"))).split())
    assert "encoder_left = 5 unidirectional LSTM layers of 256 cells on 192 features, for the first 20 frames" in shown
    assert "encoder_right = 5 unidirectional LSTM layers of 1024 cells on 192 features, for the other frames" in shown
    assert "acoustic 63,574,213 – encoder + prediction + joint" in shown
    assert "counts agree" not in shown


@pytest.mark.parametrize(
    ("passes", "said"),
    [("both", "in each of two passes"), ("first", "first pass alone"), ("second", "second pass alone")],
)
def test_which_pass_is_decoded_is_said(passes: str, said: str) -> None:
    settings = default_settings(hwsim.load_workload("conformer_production"), changes={"passes": passes})
    result = simulate("edge_npu", "conformer_production", "int8", frames=12, settings=settings)
    totals = decode_totals(result)
    rows = f"rows: prediction network {totals.prediction_rows}, joint {totals.joint_rows}"
    assert decode_text(result).endswith(f"{rows}; {said}")


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
