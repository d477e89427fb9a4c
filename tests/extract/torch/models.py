"""Modules as users write them, and counts by other means than the reader's."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hwsim.extract.graph.nodes import Graph, Node, NodeKind

GATES = {NodeKind.LSTM: 4, NodeKind.GRU: 3}


def node_macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node by its attributes and weights."""
    size = node.attributes
    match node.kind:
        case NodeKind.LINEAR:
            inputs, outputs = graph.weights[node.weights["weight"]].shape
            return graph.values[node.outputs[0]].elements // outputs * inputs * outputs
        case NodeKind.MATMUL:
            return size["batch"] * size["m"] * size["k"] * size["n"]
        case NodeKind.CONV:
            return size["positions"] * size["taps"] * size["inputs"] // size["groups"] * size["outputs"]
        case NodeKind.LSTM | NodeKind.GRU:
            hidden = size["projection"] or size["cells"]
            gates = GATES[node.kind] * size["cells"] * (size["inputs"] + hidden)
            return size["steps"] * size["batch"] * size["directions"] * (gates + size["cells"] * size["projection"])
    return 0


def macs(graph: Graph) -> int:
    return sum(node_macs(graph, node) for node in graph.nodes)


def counted_macs(module: nn.Module, *inputs: Any) -> int:
    """What PyTorch's own counter finds in a run, which counts no recurrent layer and no fused attention of a CPU."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


def parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def kinds(graph: Graph) -> Counter[str]:
    return Counter(node.kind.value for node in graph.nodes)


def only(graph: Graph, kind: NodeKind) -> Node:
    (found,) = (node for node in graph.nodes if node.kind == kind)
    return found


def layers(graph: Graph) -> list[str]:
    """Names of what computes, in order."""
    return [node.layer for node in graph.nodes if node.kind != NodeKind.VIEW]


class StackedEncoder(nn.Module):
    """LSTM layers, pairs of frames side by side, more LSTM layers: (T, B, 240) to (T / 2, B, 1024)."""

    def __init__(self, inputs: int = 240, cells: int = 1024) -> None:
        super().__init__()
        self.pre = nn.LSTM(inputs, cells, 2)
        self.post = nn.LSTM(2 * cells, cells, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.pre(x)
        steps, batch, width = y.shape
        y = y.transpose(0, 1).reshape(batch, steps // 2, 2 * width).transpose(0, 1)
        out: Tensor = self.post(y)[0]
        return out


class Prediction(nn.Module):
    """Labels (1, B) and the states before them, to (1, B, 320) and the states after."""

    def __init__(self, labels: int = 28, cells: int = 320) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(labels, cells), nn.LSTM(cells, cells, 2)

    def forward(self, labels: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.embedding(labels), (h, c))
        return y, h, c


class Joint(nn.Module):
    def __init__(self, encoder: int = 1024, prediction: int = 320, size: int = 512, outputs: int = 29) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(encoder + prediction, size), nn.Linear(size, outputs)

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        out: Tensor = self.linear2(torch.relu(self.linear1(torch.cat([f, g], dim=-1))))
        return out


class RelativeAttention(nn.Module):
    """Scores of contents and of relative positions; by hand, or by the fused operator with positions as a mask."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.size, self.fused = heads, width // heads, fused
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(width, width) for _ in range(3))
        self.linear_out, self.linear_pos = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.randn(heads, self.size))
        self.pos_bias_v = nn.Parameter(torch.randn(heads, self.size))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.size)

    def shifted(self, x: Tensor) -> Tensor:
        batch, heads, rows, columns = x.shape
        x = F.pad(x, (1, 0)).view(batch, heads, columns + 1, rows)
        return x[:, :, 1:].view(batch, heads, rows, columns)[..., : columns // 2 + 1]

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        query = self.split(self.linear_q(x))
        key, value = (self.split(each(x)).transpose(1, 2) for each in (self.linear_k, self.linear_v))
        place = self.split(self.linear_pos(positions)).transpose(1, 2)
        content = (query + self.pos_bias_u).transpose(1, 2)
        shifted = self.shifted((query + self.pos_bias_v).transpose(1, 2) @ place.transpose(-2, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(content, key, value, attn_mask=shifted / math.sqrt(self.size))
        else:
            scores = (content @ key.transpose(-2, -1) + shifted) / math.sqrt(self.size)
            y = torch.softmax(scores, dim=-1) @ value
        out: Tensor = self.linear_out(y.transpose(1, 2).reshape(x.shape))
        return out


class FeedForward(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Dropout(0.1),
                         nn.Linear(4 * width, width))  # fmt: skip


class ConvolutionModule(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pointwise1, self.pointwise2 = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding="same", groups=width)
        self.batch_norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.pointwise1(self.norm(x).transpose(1, 2)), dim=1)
        out: Tensor = self.pointwise2(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)
        return out


class ConformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, kernel: int, fused: bool) -> None:
        super().__init__()
        self.ff1, self.ff2 = FeedForward(width), FeedForward(width)
        self.self_attn, self.conv = RelativeAttention(width, heads, fused), ConvolutionModule(width, kernel)
        self.norm_attn, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(x)
        x = x + self.self_attn(self.norm_attn(x), positions)
        x = x + self.conv(x)
        out: Tensor = self.norm_out(x + 0.5 * self.ff2(x))
        return out


class Conformer(nn.Module):
    """Features (B, T, M) through two strided convolutions and blocks with encodings of relative positions."""

    def __init__(self, mels: int = 40, width: int = 32, heads: int = 4, blocks: int = 2, kernel: int = 31,
                 fused: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2)
        self.out = nn.Linear(8 * (((mels - 1) // 2 - 1) // 2), width)
        self.layers = nn.ModuleList(ConformerBlock(width, heads, kernel, fused) for _ in range(blocks))

    def positions(self, frames: int) -> Tensor:
        distance = torch.arange(frames - 1, -frames, -1).float()[:, None]
        angles = distance * torch.exp(torch.arange(0, self.width, 2) * (-math.log(10000.0) / self.width))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x[:, None]))))
        x = self.out(x.transpose(1, 2).flatten(2)) * math.sqrt(self.width)
        positions = self.positions(x.shape[1])
        for layer in self.layers:
            x = layer(x, positions)
        return x


class Stateless(nn.Module):
    """A prediction network without state: embeddings of the last two labels through a grouped convolution."""

    def __init__(self, labels: int = 500, width: int = 64, context: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(labels, width)
        self.conv = nn.Conv1d(width, width, context, groups=width // 4, bias=False)

    def forward(self, labels: Tensor) -> Tensor:
        y = self.embedding(labels.clamp(min=0)) * (labels >= 0)[..., None]
        return F.relu(self.conv(y.permute(0, 2, 1)).permute(0, 2, 1))
