"""LSTM and GRU modules: every option of torch is one node for each layer."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.graph.nodes import Node, NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import macs, only, parameters  # noqa: E402


def recurrent_nodes(graph) -> list[Node]:
    return [node for node in graph.nodes if node.kind in (NodeKind.LSTM, NodeKind.GRU)]


@settings(max_examples=25, deadline=None)
@given(
    gated=st.booleans(), layers=st.integers(1, 3), bidirectional=st.booleans(), bias=st.booleans(),
    batch_first=st.booleans(), projection=st.sampled_from([0, 3]), steps=st.integers(1, 5), batch=st.integers(1, 3),
)  # fmt: skip
def test_every_option(gated, layers, bidirectional, bias, batch_first, projection, steps, batch) -> None:
    inputs, cells, projection = 4, 5, 0 if gated else projection
    options = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    module = nn.GRU(inputs, cells, **options) if gated else nn.LSTM(inputs, cells, proj_size=projection, **options)
    graph = read_module(module, (torch.zeros(*((batch, steps) if batch_first else (steps, batch)), inputs),))
    nodes, directions, hidden = recurrent_nodes(graph), 1 + bidirectional, projection or cells
    assert graph.parameters == parameters(module)
    assert len(nodes) == layers
    for at, node in enumerate(nodes):
        assert node.kind == (NodeKind.GRU if gated else NodeKind.LSTM)
        assert node.attributes == {
            "steps": steps, "batch": batch, "inputs": hidden * directions if at else inputs, "cells": cells,
            "directions": directions, "projection": projection,
        }  # fmt: skip
        assert ("bias_x" in node.weights or "forward_bias_x" in node.weights) == bias
        assert graph.values[node.outputs[0]].shape[-1] == hidden * directions
    gates = (3 if gated else 4) * cells
    widths = [inputs] + [hidden * directions] * (layers - 1)
    each = sum(gates * (width + hidden) + projection * cells for width in widths)
    assert macs(graph) == steps * batch * directions * each


def test_weights_of_both_directions_are_those_of_the_module() -> None:
    module = nn.LSTM(4, 5, bidirectional=True, proj_size=3)
    graph = read_module(module, (torch.zeros(2, 1, 4),))
    node = only(graph, NodeKind.LSTM)
    held = {part: graph.weights[name] for part, name in node.weights.items()}
    assert held["forward_wx"].shape == (4, 20)
    assert held["backward_wh"].shape == (3, 20)
    assert held["backward_projection"].shape == (5, 3)
    assert node.weights["backward_wh"] == "weight_hh_l0_reverse"
    assert np.array_equal(weight_array(held["backward_wh"]), module.weight_hh_l0_reverse.detach().numpy())
    assert np.shares_memory(weight_array(held["forward_wx"]), module.weight_ih_l0.detach().numpy())


def test_given_states_are_read_and_constant_ones_are_not() -> None:
    module, x, state = nn.LSTM(4, 5), torch.zeros(2, 1, 4), torch.zeros(1, 1, 5)
    assert only(read_module(module, (x, (state, state))), NodeKind.LSTM).inputs == ("input", "hx_0", "hx_1")
    assert only(read_module(module, (x,)), NodeKind.LSTM).inputs == ("input",)


def test_an_utterance_without_a_batch_axis() -> None:
    node = only(read_module(nn.LSTM(4, 5), (torch.zeros(7, 4),)), NodeKind.LSTM)
    assert (node["steps"], node["batch"]) == (7, 1)


def test_final_states_that_are_read() -> None:
    class Summary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5)

        def forward(self, x):
            return self.gru(x)[1]

    graph = read_module(Summary(), (torch.zeros(2, 1, 4),))
    node = only(graph, NodeKind.GRU)
    assert graph.outputs == (node.outputs[1],)
    assert graph.values[node.outputs[1]].shape == (1, 1, 5)


def test_learned_initial_states_are_counted() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.h, self.c = (
                nn.LSTM(4, 5),
                nn.Parameter(torch.zeros(1, 1, 5)),
                nn.Parameter(torch.ones(1, 1, 5)),
            )

        def forward(self, x):
            return self.lstm(x, (self.h, self.c))[0]

    graph = read_module(Learned(), (torch.zeros(2, 1, 4),))
    assert graph.parameters == parameters(Learned())
    assert "initial states that are parameters are no values: 2" in graph.notes


@pytest.mark.parametrize(("cell", "kind", "outputs"), [(nn.LSTMCell, NodeKind.LSTM, 2), (nn.GRUCell, NodeKind.GRU, 1)])
def test_cells_are_layers_of_one_step(cell, kind, outputs) -> None:
    module = cell(4, 5)
    state = torch.zeros(3, 5)
    graph = read_module(module, (torch.zeros(3, 4), (state, state) if outputs == 2 else state))
    node = only(graph, kind)
    assert (node["steps"], node["batch"], len(node.inputs), len(graph.outputs)) == (1, 3, outputs + 1, outputs)
    assert graph.parameters == parameters(module)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)

    def forward(self, x, lengths):
        return self.lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data


class OfPacked(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0].data


@pytest.mark.parametrize(("module", "inputs"), [
    (Packed(), (torch.zeros(3, 2, 4), torch.tensor([3, 2]))),
    (OfPacked(4, 5), (pack_padded_sequence(torch.zeros(3, 2, 4), torch.tensor([3, 2])),)),
], ids=["within", "given"])  # fmt: skip
def test_packed_sequences_are_refused_with_advice(module, inputs, capfd) -> None:
    with pytest.raises(HwsimError) as error:
        read_module(module, inputs)
    assert re.fullmatch(r"encoder: must read a padded tensor, got a packed sequence at test_recurrent\.py:\d+: "
                        r"call the module without pack_padded_sequence, at one length", str(error.value))  # fmt: skip
    assert capfd.readouterr() == ("", "")


def test_plain_recurrent_networks_are_not_read() -> None:
    with pytest.raises(HwsimError) as error:
        read_module(nn.RNN(4, 5), (torch.zeros(3, 2, 4),))
    assert str(error.value).startswith("encoder: operators must be ones that are read, got aten.rnn_tanh.input "
                                       "(1 node, first of the module itself")  # fmt: skip
