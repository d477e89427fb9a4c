"""LSTM and GRU: one node for each layer, both directions in it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call, Meta, Ref
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held

GATES = {NodeKind.LSTM: 4, NodeKind.GRU: 3}
KINDS = {"lstm": NodeKind.LSTM, "gru": NodeKind.GRU, "lstm_cell": NodeKind.LSTM, "gru_cell": NodeKind.GRU}
Parts = dict[str, Held | Constant | None]


def recurrent(draft: Draft, call: Call) -> tuple[Entry, ...]:
    """A stack of layers: y, then final states (layers x directions, batch, size), those that are read.

    Raises HwsimError for packed sequences, whose sizes depend on lengths.
    """
    if "batch_sizes" in call.arguments or "data" in call.arguments:
        raise call.refuse("must read a padded tensor, got a packed sequence: call the module without "
                          "pack_padded_sequence, at one length")  # fmt: skip
    kind, layers = KINDS[call.kind], call["num_layers"]
    directions = 2 if call["bidirectional"] else 1
    x = draft.lifted(draft.entry(call["input"]), call)
    names = _names(call, kind, layers * directions)
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    finals: list[list[Computed]] = [[] for _ in states]
    title = draft.layer(call) if layers == 1 else call.path or call.kind
    for layer in range(layers):
        parts = [_held(draft, names[at]) for at in range(layer * directions, (layer + 1) * directions)]
        first = [_initial(draft, call, state, layer * directions, directions) for state in states]
        name = call.name if layer == layers - 1 else f"{call.name}.layer{layer}"
        own = title if layers == 1 else draft.unique(f"{title}.layer{layer}")
        given = [one for one in first if one is not None]
        x, made = cells(draft, call, kind, x, parts, given, name, own, batch_first=call["batch_first"])
        for kept, one in zip(finals, made, strict=True):
            kept.append(one)
    return x, *(_stacked(draft, call, kept, at) for at, kept in enumerate(finals, 1))


def cells(draft: Draft, call: Call, kind: NodeKind, x: Computed, parts: Sequence[Parts], states: Sequence[Computed],
          name: str, layer: str, *, batch_first: bool = False) -> tuple[Computed, list[Computed]]:  # fmt: skip
    """One layer: its output, and its final states. `parts`: of each direction, in the layouts of torch."""
    gates, directions = GATES[kind], len(parts)
    hidden = parts[0]["wh"]
    assert hidden is not None
    cells_, size = hidden.shape[0] // gates, hidden.shape[1]
    *lead, inputs = x.shape
    steps, batch = (lead[1], lead[0]) if batch_first else (lead[0], prod(lead[1:]))
    out = draft.value(name, Meta((*lead, directions * size), x.dtype))
    sizes = [size, cells_] if kind == NodeKind.LSTM else [size]
    made = [draft.value(f"{name}.state{at}", Meta((directions, batch, each), x.dtype)) for at, each in enumerate(sizes)]
    weights = {}
    for at, one in enumerate(parts):
        prefix = "" if directions == 1 else ("forward_", "backward_")[at]
        for part, held in one.items():
            if held is not None:
                shape = held.shape[::-1] if part in ("wx", "wh", "projection") else held.shape
                weights[prefix + part] = draft.weights.add(held, shape, f"{layer}.{prefix}{part}")
    draft.node(kind, call, [x, *states], [out, *made], layer=layer, weights=weights, steps=steps, batch=batch,
               inputs=inputs, cells=cells_, directions=directions,
               projection=size if parts[0].get("projection") is not None else 0)  # fmt: skip
    return out, made


def cell(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
    """LSTMCell, GRUCell: one step of a layer from given states."""
    kind = KINDS[call.kind]
    x = draft.lifted(draft.entry(call["input"]), call)
    given = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    states = [one for one in (draft.entry(ref) for ref in given) if isinstance(one, Computed)]
    parts = {"wx": draft.operand(call["w_ih"]), "wh": draft.operand(call["w_hh"]),
             "bias_x": draft.operand(call["b_ih"]), "bias_h": draft.operand(call["b_hh"])}  # fmt: skip
    if any(isinstance(one, Computed) for one in parts.values()):
        raise call.refuse("must have weights of parameters, got computed ones")
    batch = prod(x.shape[:-1])
    step = draft.view(call, [x], Meta((1, batch, x.shape[-1]), x.dtype), f"{call.name}.step")
    metas = [meta for meta in call.outputs if meta is not None]
    out, made = cells(draft, call, kind, step, [parts], states, f"{call.name}.y", draft.layer(call))  # type: ignore[list-item]
    if kind == NodeKind.GRU:
        return draft.view(call, [out], metas[0])
    return tuple(draft.view(call, [made[at]], meta, f"{call.name}.{at}") for at, meta in enumerate(metas))


def _names(call: Call, kind: NodeKind, count: int) -> list[list[Any]]:
    """What each layer and direction holds: weights, biases, a projection."""
    params = list(call["params"])
    each = len(params) // count
    if each * count != len(params) or each not in (2, 3, 4, 5):
        raise call.refuse(f"must have 2 to 5 parameters for each of {count} layers and directions, got {len(params)}")
    return [params[at * each : (at + 1) * each] for at in range(count)]


def _held(draft: Draft, refs: Sequence[Ref]) -> Parts:
    entries = [draft.entry(ref) for ref in refs]
    parts: dict[str, Any] = dict.fromkeys(("wx", "wh", "bias_x", "bias_h", "projection"))
    parts["wx"], parts["wh"], *others = entries
    if len(others) % 2:
        parts["projection"] = others.pop()
    if others:
        parts["bias_x"], parts["bias_h"] = others
    return parts


def _initial(draft: Draft, call: Call, state: Ref, start: int, count: int) -> Computed | None:
    """Initial states of a layer, None for constants."""
    entry = draft.entry(state)
    if isinstance(entry, Held):
        draft.weights.absorb(entry.sources)
        draft.counts["initial states that are parameters are no values: {}"] += 1
    if not isinstance(entry, Computed):
        return None
    if entry.shape[0] == count:
        return entry
    return draft.view(call, [entry], Meta((count, *entry.shape[1:]), entry.dtype), f"{call.name}.{state.name}.{start}")


def _stacked(draft: Draft, call: Call, states: Sequence[Computed], at: int) -> Computed:
    if len(states) == 1:
        return states[0]
    meta = Meta((sum(one.shape[0] for one in states), *states[0].shape[1:]), states[0].dtype)
    return draft.view(call, states, meta, f"{call.name}.final{at}")


HANDLERS = {
    **dict.fromkeys(("lstm", "gru"), recurrent), **dict.fromkeys(("lstm_cell", "gru_cell"), cell),
}  # fmt: skip
