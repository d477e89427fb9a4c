"""Attention in PyTorch: scores, relative positions, softmax and context."""

from __future__ import annotations

import torch
from torch import Tensor

from hwsim.execute.operations.row import Row
from hwsim.numerics.tables import exponential_table
from hwsim.trace import Function, Kind
from hwsim.validate.oracles.torch_graph import Graph, computes


@computes(Kind.MATMUL, Function.SCORES)
def scores(graph: Graph, row: Row) -> None:
    """q (T, D), keys (S, D) -> q key^T / sqrt(d) of each head, (H, T, S)."""
    q, keys = (_heads(x, row.batch) for x in graph.operands(row))
    graph.put(row.writes[0].name, q @ keys.transpose(1, 2) / row.k**0.5)


@computes(Kind.MATMUL, Function.CONTEXT)
def context(graph: Graph, row: Row) -> None:
    """Probabilities (H, T, S), values (S, D) -> (T, D)."""
    probabilities, values = graph.operands(row)
    y = probabilities @ _heads(values, row.batch)
    graph.put(row.writes[0].name, y.transpose(0, 1).reshape(y.shape[1], -1))


@computes(Kind.ELEMENTWISE, Function.RELATIVE_ADD)
def relative_add(graph: Graph, row: Row) -> None:
    """out[h, i, j] = a[h, i, j] + b[h, i, T - 1 - i + j]."""
    content, position = graph.operands(row)
    frames = torch.arange(content.shape[-1])
    at = content.shape[-1] - 1 - frames[:, None] + frames[None]
    graph.put(row.writes[0].name, content + position.gather(2, at.expand(len(content), -1, -1)))


@computes(Kind.SOFTMAX, Function.PROBABILITIES)
def probabilities(graph: Graph, row: Row) -> None:
    """The softmax over keys that a query sees. On a grid by the shared table of exponentials, as the integers do."""
    name = row.activations[0].name
    x, grid = graph.values[name], graph.grid(name)
    kept = _seen(row, x.shape[-2], x.shape[-1])
    if grid is None:
        y = torch.softmax(x.masked_fill(~kept, -torch.inf), dim=-1)
        graph.put(row.writes[0].name, y.masked_fill(~kept, 0.0))
        return
    codes = torch.as_tensor(graph.codes[name])
    top = codes.masked_fill(~kept, int(codes.min())).amax(dim=-1, keepdim=True)
    table = torch.as_tensor(exponential_table(float(grid.scale), grid.bits)).to(graph.dtype)
    numerators = table[(top - codes).clamp(min=0)].masked_fill(~kept, 0.0)
    total = numerators.sum(dim=-1, keepdim=True).clamp(min=1.0)
    # A tie goes up, while the grid of probabilities takes it to even: half a unit is added and the rest dropped.
    output = graph.grid(row.writes[0].name)
    assert output is not None
    levels = 2.0**output.bits
    exact = numerators * levels / total
    graph.put(row.writes[0].name, torch.floor(exact + 0.5).clamp(max=levels - 1) / levels)
    graph.steps[row.writes[0].name] = exact.double().numpy()


def _heads(x: Tensor, heads: int) -> Tensor:
    """(T, H d) -> (H, T, d)."""
    return x.reshape(len(x), heads, -1).transpose(0, 1)


def _seen(row: Row, queries: int, keys: int) -> Tensor:
    """Which keys each query sees, (T, S): from i - left to i + right, all where there is no bound.

    With a chunk both bounds are counted from the first frame of the query's chunk, the right one is its last frame.
    """
    left, right, chunk = (row.attributes.get(name) for name in ("left", "right", "chunk"))
    first = torch.arange(queries)[:, None]
    if chunk is not None:
        first, right = first // int(chunk) * int(chunk), int(chunk) - 1
    distance = torch.arange(keys)[None] - first
    kept = torch.ones(queries, keys, dtype=torch.bool)
    kept = kept if left is None else kept & (distance >= -int(left))
    return kept if right is None else kept & (distance <= int(right))
