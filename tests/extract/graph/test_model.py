"""An extracted recognizer is simulated as the same network of the catalogue, and its file keeps it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.decode.search import default_settings
from hwsim.errors import HwsimError
from hwsim.extract import ExtractedModel, load_model, load_network, load_workload, save_model
from hwsim.extract.graph.facts import graph_macs, node_facts
from hwsim.extract.graph.nodes import Graph, Node, NodeKind, Value, weight_array
from hwsim.extract.graph.search import joint_sides, main_output
from hwsim.extract.graph.split import split_decoder_joint
from hwsim.trace import Kind
from tests.extract.graph.networks import FRAMES, Draft, decoding, encoder, joint, language_model, mlperf, prediction


@pytest.fixture(scope="module")
def model() -> ExtractedModel:
    return mlperf()


def test_mlperf_has_its_45_323_037_parameters_and_the_macs_of_the_catalogue(model: ExtractedModel) -> None:
    ours, theirs = model.networks, load_network("rnnt_mlperf").networks
    assert ours.totals().parameters == theirs.totals().parameters == 45_323_037
    for component in ("prediction", "joint"):
        assert ours.totals(component).macs == theirs.totals(component).macs
    assert sum(map(graph_macs, model.graphs.values())) == ours.totals().macs


@pytest.mark.parametrize("arch", ["rapid_4core", "edge_npu"])
@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize(("algorithm", "beam"), [("greedy", 1), ("alsd", 8), ("tsd", 4)])
def test_cycles_and_energy_are_those_of_the_catalogue(
    model: ExtractedModel, arch: str, precision: str, algorithm: str, beam: int
) -> None:
    catalogue = load_network("rnnt_mlperf")
    settings = replace(default_settings(catalogue, algorithm=algorithm, beam=beam), u_max=100)
    theirs = hwsim.simulate(arch, catalogue, precision, frames=FRAMES, settings=settings)
    ours = hwsim.simulate(arch, model, precision, settings=settings)
    assert ours.cycles == theirs.cycles
    assert {name: part.cycles for name, part in ours.components.items()} == {
        name: part.cycles for name, part in theirs.components.items()
    }
    assert ours.energy_j == pytest.approx(theirs.energy_j, rel=1e-12)


def test_switches_of_the_decoder_count_the_same(model: ExtractedModel) -> None:
    catalogue = load_network("rnnt_mlperf")
    plain = replace(default_settings(catalogue), hoisted_encoder_projection=False, hoisted_prediction_projection=False,
                    prediction_cache=False)  # fmt: skip
    theirs = hwsim.simulate("rapid_4core", catalogue, "int4", frames=FRAMES, settings=plain)
    assert hwsim.simulate("rapid_4core", model, "int4", settings=plain).cycles == theirs.cycles


def test_a_log_softmax_of_the_file_is_the_one_of_the_search(model: ExtractedModel) -> None:
    with_softmax = mlperf(joint=joint(log_softmax=True))
    assert hwsim.simulate("edge_npu", with_softmax, "int4").cycles == hwsim.simulate("edge_npu", model, "int4").cycles


def test_language_models_are_fused(model: ExtractedModel) -> None:
    fused = mlperf(external_lm=language_model(), source_lm=language_model())
    assert fused.language_models == ("external_lm", "source_lm")
    result = hwsim.simulate("rapid_4core", fused, "int4", decoder="alsd", beam=4,
                            settings=replace(default_settings(fused, algorithm="alsd", beam=4), u_max=100))  # fmt: skip
    assert result.components["external_lm"].cycles > 0
    assert result.components["source_lm"].macs == result.components["external_lm"].macs > 0
    with pytest.raises(HwsimError, match="lm shallow must have external_lm in workload mlperf, got no language model"):
        default_settings(model, lm="shallow")


def test_an_encoder_alone_is_simulated_without_a_search() -> None:
    alone = ExtractedModel("alone", {"encoder": encoder()}, FRAMES, 0.03, decoding())
    result = hwsim.simulate("rapid_4core", alone, "int8")
    assert list(result.components) == ["encoder"]
    assert result.components["encoder"].macs == graph_macs(encoder())
    assert result.audio_s == pytest.approx(6.24)


def test_formats_of_the_file_are_native() -> None:
    d = Draft(features=(1, 64, 32))
    d.linear("first", "features", 48)
    d.linear("second", "first", 8)
    graph = d.graph("encoder", "second")
    weights = {**graph.weights, "second.weight": replace(graph.weights["second.weight"], format="int4/channel")}
    nodes = (graph.nodes[0], replace(graph.nodes[1], input_format="int8"))
    values = {**graph.values, "first": Value("first", (1, 64, 48), "int8")}
    mixed = ExtractedModel("mixed", {"encoder": replace(graph, weights=weights, nodes=nodes, values=values)}, 64, 0.01,
                           decoding(64))  # fmt: skip
    trace = mixed.networks
    formats = {tensor.name: tensor.format for tensor in trace.tensors}
    assert formats["encoder.second.weight"] == "int4/channel"
    assert formats["encoder.first.weight"] == "fp32"
    assert formats["encoder.first.value"] == "int8"
    assert dict(zip(trace.layers, trace.input_formats, strict=True))["encoder.second"] == "int8"
    result = hwsim.simulate("edge_npu", mixed, "native-fp16")
    assert result.formats == {"fp16", "int8"}
    with pytest.raises(HwsimError, match="edge_npu cannot compute fp32"):
        hwsim.simulate("edge_npu", mixed, "native")
    assert hwsim.simulate("edge_npu", mixed, "int4").formats == {"int4"}


def test_a_network_of_the_catalogue_has_no_native_formats() -> None:
    with pytest.raises(HwsimError, match="precision must be a policy or a format for rnnt_mlperf, got native: only "
                                         "extracted models have formats of their own"):  # fmt: skip
        hwsim.simulate("edge_npu", "rnnt_mlperf", "native")


def test_a_file_keeps_the_model_and_its_weights(model: ExtractedModel, tmp_path: Path) -> None:
    path = tmp_path / "mlperf.hwsim"
    save_model(model, path)
    first = path.read_bytes()
    save_model(model, path)
    assert path.read_bytes() == first
    found = load_model(path)
    assert found == model
    assert list(found.graphs) == list(model.graphs)
    assert found.digest == model.digest
    held = model.graphs["joint"].weights["hidden.weight"]
    assert np.array_equal(weight_array(found.graphs["joint"].weights["hidden.weight"]), weight_array(held))
    assert (
        hwsim.simulate("rapid_4core", str(path), "int4").cycles == hwsim.simulate("rapid_4core", model, "int4").cycles
    )
    assert load_workload(path) is load_workload(path)


def test_workers_are_sent_the_structure_alone(model: ExtractedModel) -> None:
    sent = pickle.dumps(model)
    assert len(sent) < 100_000
    found = pickle.loads(sent)
    assert found == model
    with pytest.raises(HwsimError, match="weight 'table' must have its content, got a shape only"):
        weight_array(found.graphs["prediction"].weights["table"])


def test_damaged_files_are_refused(model: ExtractedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.hwsim"
    with pytest.raises(HwsimError, match="must be a file, got nothing there"):
        load_workload(path)
    save_model(ExtractedModel("small", {"encoder": _small()}, 4, 0.01, decoding(4)), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(HwsimError, match="must be a whole and unaltered extracted model"):
        load_workload(path)
    broken = bytearray(content)
    at = content.index(np.arange(12, dtype=np.float32).tobytes())
    broken[at] ^= 1
    path.write_bytes(bytes(broken))
    with pytest.raises(HwsimError, match=r"must hold weight encoder/0.content.npy whole, got Bad CRC-32"):
        weight_array(load_model(path).graphs["encoder"].weights["only.weight"])


@pytest.mark.parametrize(
    ("graphs", "said"),
    [
        ({}, "must have an encoder, got nothing"),
        ({"encoder": 1, "joint": 1}, "must have prediction beside encoder, joint"),
        ({"encoder": 1, "decoder": 1}, "a component must be encoder, prediction, joint, external_lm, source_lm, got"),
        ({"encoder": 1, "prediction": 1, "joint": 1, "source_lm": 1}, "must have an external_lm beside its source_lm"),
    ],
)
def test_components_must_make_a_recognizer(graphs: dict[str, int], said: str) -> None:
    made = {"encoder": encoder, "prediction": prediction, "joint": joint}
    with pytest.raises(HwsimError, match=said):
        ExtractedModel("m", {name: made.get(name, language_model)() for name in graphs}, FRAMES, 0.03, decoding())


def test_a_joint_reads_one_row_of_each_side() -> None:
    d = Draft(encoder_side=(1, 7, 1024), prediction_side=(1, 1, 320))
    d.linear("output", d.view("both", ("encoder_side", "prediction_side"), 1, 7, 1344), 29)
    with pytest.raises(HwsimError, match="the joint's input 'encoder_side' must be one row of the encoder's output"):
        mlperf(joint=d.graph("joint", "output"))
    d = Draft(one=(1, 1, 1024))
    with pytest.raises(HwsimError, match="a joint must have 2 real inputs, got 1: one"):
        mlperf(joint=d.graph("joint", d.linear("output", "one", 29)))


def test_another_length_is_refused(model: ExtractedModel) -> None:
    with pytest.raises(HwsimError, match="frames must be 208, the length that mlperf was extracted for, got 100"):
        hwsim.simulate("rapid_4core", model, "int4", frames=100)


def test_only_the_catalogue_has_a_file_to_train(model: ExtractedModel) -> None:
    with pytest.raises(HwsimError, match="must be a network of the catalogue or a YAML file, got an extracted model"):
        model.spec  # noqa: B018


def test_sides_are_told_by_their_names_or_their_order() -> None:
    for names, wanted in ((("decoder_out", "encoder_out"), ("encoder_out", "decoder_out")), (("a", "b"), ("a", "b")),
                          (("enc", "pred"), ("enc", "pred")), (("pred", "x"), ("x", "pred"))):  # fmt: skip
        d = Draft(**dict.fromkeys(names, (1, 1, 8)))
        assert joint_sides(d.graph("joint", d.function("sum", "add", *names))) == wanted


def test_the_output_of_a_prediction_network_is_no_state() -> None:
    assert main_output(prediction()) == "lstm1"
    assert main_output(language_model()) == "output"


def test_a_stateless_prediction_network_copies_no_states() -> None:
    d = Draft(labels=(1, 2))
    d.values["labels"] = Value("labels", (1, 2), integer=True)
    x = d.add(NodeKind.LOOKUP, "embedding", ("labels",), (1, 2, 320), {"table": d.weight("table", 28, 320)})
    x = d.add(NodeKind.CONV, "context", (x,), (1, 1, 320), {"weight": d.weight("kernel", 2, 1, 320)}, positions=1,
              taps=2, inputs=320, outputs=320, groups=320, dimensions=1, kernel=[2], stride=[1], dilation=[1],
              padding=[[0, 0]])  # fmt: skip
    stateless = mlperf(prediction=d.graph("prediction", x))
    result = hwsim.simulate("edge_npu", stateless, "int8")
    kinds = result.run.trace.kind
    assert not np.isin(kinds, [Kind.STATE_IN, Kind.STATE_OUT]).any()
    assert result.components["prediction"].macs == 88 * (2 * 320 + 320 * 512)  # and its side of the joint


def test_facts_list_every_weight_once(model: ExtractedModel) -> None:
    facts = node_facts(model)
    assert sum(row.parameters for row in facts) == 45_323_037
    assert {row.operation for row in facts} == {"lstm 1024", "lstm 320", "lookup", "linear"}


def _small() -> Graph:
    d = Draft(features=(1, 4, 3))
    return d.graph("encoder", d.linear("only", "features", 4))


def test_a_prediction_network_and_a_joint_in_one_graph_are_taken_apart(model: ExtractedModel) -> None:
    first, second = prediction(), joint()
    both = replace(
        second, name="decoder_joint", nodes=(*first.nodes, *(_renamed(node) for node in second.nodes)),
        values={**first.values, **second.values}, weights={**first.weights, **second.weights},
        inputs=("encoder_side", *first.inputs), outputs=("output", "h_out", "c_out"),
    )  # fmt: skip
    apart = split_decoder_joint(both)
    assert [graph.parameters for graph in apart] == [first.parameters, second.parameters]
    found = ExtractedModel("mlperf", {"encoder": encoder(), "prediction": apart[0], "joint": apart[1]}, FRAMES, 0.03,
                           decoding())  # fmt: skip
    assert hwsim.simulate("edge_npu", found, "int4").cycles == hwsim.simulate("edge_npu", model, "int4").cycles


def test_what_never_meets_the_encoder_is_not_taken_apart() -> None:
    with pytest.raises(HwsimError, match="prediction network and joint must meet in one value, got 2: embedding, c"):
        split_decoder_joint(language_model())


def _renamed(node: Node) -> Node:
    return replace(node, inputs=tuple("lstm1" if name == "prediction_side" else name for name in node.inputs))
