"""What opaque operators stand for: quantizers, functions by tables, integer softmax and recurrent layers of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Grid, Held
from hwsim.extract.torch.opaque import Opaque
from hwsim.extract.torch.pointwise import rows_of_softmax
from hwsim.extract.torch.quantizers import activation_quantizer, module_grid, numeric, on_grid
from hwsim.extract.torch.recurrent import cells


def opaque(draft: Draft, call: Call, known: list[Opaque]) -> Entry | tuple[Entry, ...]:
    """The nodes of an opaque operator."""
    kind, payload = known[call["index"]]
    x = draft.entry(call["x"])
    if kind == "quantizer":
        grid = module_grid(payload, x)
        return x if grid is None else on_grid(draft, call, x, grid)
    if kind == "_StraightThrough":
        return on_grid(draft, call, x, numeric(payload[0], len(x.shape), x.dtype))
    if kind == "_ByTable":
        return draft.pointwise(call, payload[1], [x], call.meta, layer=draft.layer(call, operation=payload[1]))
    if kind == "_IntegerSoftmax":
        return rows_of_softmax(draft, call, draft.lifted(x, call), call.meta, call.name)
    path, module = payload
    if call.kind == "step":
        return _step(draft, call, draft.lifted(x, call), path, module)
    return layers(draft, call, draft.lifted(x, call), path, module)[0]


def layers(draft: Draft, call: Call, x: Computed, path: str, module: Any,
           states: Sequence[Sequence[Computed]] = ()) -> tuple[Computed, list[Computed]]:  # fmt: skip
    """Recurrent layers of ours, x (T, K) or (T, B, K), with the grids of their inputs, weights and hidden states.

    `states`: of each layer, where they are given. Returns what the last layer writes and the final states of all.
    """
    kind = NodeKind.GRU if getattr(module, "GATES", 4) == 3 else NodeKind.LSTM
    stack = hasattr(module, "layers")
    count, grid = module.layers if stack else 1, module.layer_grid if stack else (lambda at: None)
    suffixes = module.suffixes if stack else ("",)
    first, finals = x, []
    for at in range(count):
        if at and getattr(module, "dense_inputs", False):
            shape = (*x.shape[:-1], first.shape[-1] + x.shape[-1])
            x = draft.view(call, [first, x], Meta(shape, x.dtype), f"{call.name}.in{at}")
        x = _behind(draft, call, x, grid(at))
        first = first if at else x
        parts = [_parts(draft, path, module, at, suffix) for suffix in suffixes]
        name = call.name if at == count - 1 else f"{call.name}.layer{at}"
        layer = draft.unique(f"{path}.layer{at}".strip(".") if stack else path or "lstm")
        made, after = cells(draft, call, kind, x, parts, states[at] if states else [], name, layer)
        x, hidden = (_behind(draft, call, one, module.hidden_grid) for one in (made, after[0]))
        finals += [hidden, *after[1:]]
    return x, finals


def _step(draft: Draft, call: Call, x: Computed, path: str, module: Any) -> tuple[Entry, ...]:
    """One step of rows (R, K): h (R, H) and the states after, (R, H) each."""
    given = [draft.entry(ref) for ref in call["states"]]
    each = len(given) // (module.layers if hasattr(module, "layers") else 1)
    before = [[one for one in given[at : at + each] if isinstance(one, Computed)] for at in range(0, len(given), each)]
    rows = draft.view(call, [x], Meta((1, *x.shape), x.dtype), f"{call.name}.rows")
    made = layers(draft, call, rows, path, module, before)
    metas = [meta for meta in call.outputs if meta is not None]
    return tuple(draft.view(call, [one], meta, f"{call.name}.{at}")
                 for at, (one, meta) in enumerate(zip((made[0], *made[1]), metas, strict=True)))  # fmt: skip


def _behind(draft: Draft, call: Call, x: Computed, module: Any) -> Computed:
    found = x if module is None else on_grid(draft, call, x, numeric(activation_quantizer(module), len(x.shape)))
    assert isinstance(found, Computed)
    return found


def _parts(draft: Draft, path: str, module: Any, layer: int, suffix: str) -> dict[str, Held | Constant | None]:
    """Weights of a direction in the layouts of torch, on the grids of the module."""

    def held(part: str) -> Held:
        return draft.weights.parameter(f"{path}.{part}_l{layer}{suffix}".strip("."))

    one = getattr(module, "weight_grid", None)
    grids = {
        "weight_ih": getattr(module, "input_weight_grid", one),
        "weight_hh": getattr(module, "hidden_weight_grid", one),
    }
    found = {}
    for part in ("weight_ih", "weight_hh"):
        matrix, grid = held(part), grids[part]
        if grid is not None:
            turned = matrix.moved(lambda x: x.T, Meta(matrix.shape[::-1], matrix.dtype))
            made: Grid | None = module_grid(grid, turned)
            assert made is not None
            matrix = turned.quantized(made).moved(lambda x: x.T, Meta(matrix.shape, matrix.dtype))
        found[part] = matrix
    return {"wx": found["weight_ih"], "wh": found["weight_hh"], "bias_x": held("bias_ih"), "bias_h": held("bias_hh")}
