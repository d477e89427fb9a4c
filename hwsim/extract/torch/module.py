"""From a PyTorch module to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch.export.graph_signature import InputKind

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, Node, check_parameters
from hwsim.extract.torch.calls import read_calls, references, tensor_meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant
from hwsim.extract.torch.export import exported
from hwsim.extract.torch.opaque import Opaque
from hwsim.extract.torch.reader import Reader
from hwsim.extract.torch.weights import Weights

Unused = Literal["refuse", "note"]


def read_module(module: nn.Module, example_inputs: tuple[Any, ...], name: str = "encoder",
                kwargs: Mapping[str, Any] | None = None, *, unused: Unused = "refuse") -> Graph:  # fmt: skip
    """The graph of a module in evaluation, at the sizes of its example inputs.

    `example_inputs`, `kwargs`: what the module is called with; only shapes and types matter. Layers have the paths of
    modules (`layers.0.self_attn.linear_q`), operations between them `<path>.<operation>`. Quantizers become formats:
    of PyTorch (FakeQuantize), and of `hwsim.train`. Weights are read in place, without copies, when they are loaded.
    `unused`: what to do with parameters that the call does not read: `refuse`, or `note` them and count them.
    Raises HwsimError for what `torch.export` refuses, for operators that are not read, and for parameters that
    would be lost.
    """
    _check_module(module, unused)
    training = {part: part.training for part in module.modules()}
    try:
        program, known = exported(module.eval(), tuple(example_inputs), dict(kwargs or {}), name)
        return _read(module, program, known, name, unused)
    finally:
        for part, was in training.items():
            part.training = was


def _check_module(module: Any, unused: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise HwsimError("module must be an nn.Module, got TorchScript: build the module from its Python class and "
                         "load its weights")  # fmt: skip
    if not isinstance(module, nn.Module):
        raise HwsimError(f"module must be an nn.Module, got {type(module).__name__}: build it from its Python class, "
                         "and read a checkpoint with load_weights")  # fmt: skip
    if unused not in ("refuse", "note"):
        raise HwsimError(f"unused must be refuse or note, got {unused}")


def _read(module: nn.Module, program: Any, known: list[Opaque], name: str, unused: str) -> Graph:
    every = dict(module.named_parameters(remove_duplicate=False))
    parameters = dict(module.named_parameters())
    first = {id(tensor): title for title, tensor in parameters.items()}
    weights = Weights(parameters, {title: first[id(tensor)] for title, tensor in every.items()})
    draft = Draft(weights, *_one_operation(module))
    calls, result = read_calls(program.graph_module)
    reader = Reader(draft, calls, known, name)
    _declare_inputs(draft, reader, program, module)
    reader.read(result)
    outputs = _outputs(draft, result)
    if not outputs:
        raise HwsimError(f"{name}: the module must give what depends on its inputs, got constants only")
    return _graph(draft, outputs, name, unused, sum(each.numel() for each in module.parameters()))


def _one_operation(module: nn.Module) -> tuple[frozenset[str], frozenset[str]]:
    """Paths of PyTorch's modules without modules within, and of others that hold its parameters."""
    leaves, holders = set(), set()
    for path, part in module.named_modules():
        own = [each.ndim > 1 for each in part.parameters(recurse=False)]
        if type(part).__module__.startswith("torch.nn.") and not any(part.children()):
            leaves.add(path)
        elif (
            own and sum(own) <= 1 and not any(each.numel() for child in part.children() for each in child.parameters())
        ):
            holders.add(path)
    return frozenset(leaves), frozenset(holders)


def _declare_inputs(draft: Draft, reader: Reader, program: Any, module: nn.Module) -> None:
    """Placeholders of a program: parameters, buffers, constants and what the user gives."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        title = spec.arg.name
        meta = tensor_meta(nodes[title].meta.get("val"), f"input '{title}'")
        if meta is None:
            continue
        if spec.kind == InputKind.PARAMETER:
            draft.entries[title] = draft.weights.parameter(spec.target)
        elif spec.kind == InputKind.USER_INPUT:
            draft.input(title, meta)
        else:
            tensor = buffers[spec.target] if spec.target in buffers else program.constants[spec.target]
            draft.entries[title] = Constant(tensor.detach(), spec.target)
        reader.aliases.start(title, meta)


def _outputs(draft: Draft, result: Any) -> list[Computed]:
    found: list[Computed] = []
    for ref in references(result):
        whole = draft.entries[ref.name]
        for entry in whole if isinstance(whole, tuple) else (whole,):
            if isinstance(entry, Computed):
                found.append(entry)
            else:
                draft.counts["outputs that depend on no input were left out: {}"] += 1
    return found


def _graph(draft: Draft, outputs: list[Computed], name: str, unused: str, parameters: int) -> Graph:
    draft.stored_formats(outputs)
    weights = draft.weights
    weights.finish(unused, name)
    nodes = _needed(draft.nodes, outputs)
    read = {one for node in nodes for one in (*node.inputs, *node.outputs)} | {one.name for one in outputs}
    values = {title: value for title, value in draft.values.items() if title in read or title in draft.inputs}
    shared = {title: count for title, count in weights.folded.items() if title in values or title in weights.found}
    if any(tensor.dtype == torch.float64 for tensor in weights.parameters.values()):
        draft.notes.append("float64 is counted as fp32")
    notes = [text.format(count) for text, count in draft.counts.items()] + list(dict.fromkeys(weights.notes))
    graph = Graph(name, values, tuple(nodes), dict(weights.found), tuple(draft.inputs),
                  tuple(dict.fromkeys(one.name for one in outputs)), shared, (*notes, *draft.notes))  # fmt: skip
    check_parameters(graph, weights.held())
    if graph.parameters != parameters:
        raise HwsimError(f"{name}: the network must have the {parameters} parameters of the module, "
                         f"got {graph.parameters}")  # fmt: skip
    return graph


def _needed(nodes: list[Node], outputs: list[Computed]) -> list[Node]:
    """Nodes that an output needs; states that nobody reads have no name."""
    wanted, kept = {one.name for one in outputs}, []
    for node in reversed(nodes):
        if wanted.isdisjoint(node.outputs):
            continue
        wanted.update(node.inputs)
        read = tuple(out if at == 0 or out in wanted else "" for at, out in enumerate(node.outputs))
        kept.append(replace(node, outputs=read))
    return kept[::-1]
