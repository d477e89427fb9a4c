"""Networks in torch that tests export, and what hooks count of their parameters and multiplications."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from torch import nn  # noqa: E402


class RelativeAttention(nn.Module):
    """Attention with encodings of relative positions and learned offsets, after Transformer-XL."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(width, width) for _ in range(3))
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.linear_out = nn.Linear(width, width)
        self.pos_bias_u = nn.Parameter(torch.randn(heads, self.depth))
        self.pos_bias_v = nn.Parameter(torch.randn(heads, self.depth))

    def forward(self, x: Any, positions: Any) -> Any:
        batch, steps, width = x.shape
        query = self.linear_q(x).view(batch, steps, self.heads, self.depth)
        key, value = (each(x).view(batch, steps, self.heads, self.depth).transpose(1, 2)
                      for each in (self.linear_k, self.linear_v))  # fmt: skip
        encoded = self.linear_pos(positions).view(1, -1, self.heads, self.depth).transpose(1, 2)
        content = (query + self.pos_bias_u).transpose(1, 2) @ key.transpose(-2, -1)
        shifted = self.shift((query + self.pos_bias_v).transpose(1, 2) @ encoded.transpose(-2, -1))
        weights = ((content + shifted[..., :steps]) / self.depth**0.5).softmax(dim=-1)
        return self.linear_out((weights @ value).transpose(1, 2).reshape(batch, steps, width))

    @staticmethod
    def shift(scores: Any) -> Any:
        batch, heads, rows, columns = scores.shape
        padded = nn.functional.pad(scores, (1, 0)).view(batch, heads, columns + 1, rows)
        return padded[:, :, 1:].reshape(batch, heads, rows, columns)


class Convolution(nn.Module):
    """Pointwise, GLU, depthwise, batch norm, swish, pointwise."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_in = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2, groups=width)
        self.norm = nn.BatchNorm1d(width)
        self.pointwise_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Any) -> Any:
        x = nn.functional.glu(self.pointwise_in(x.transpose(1, 2)), dim=1)
        return self.pointwise_out(nn.functional.silu(self.norm(self.depthwise(x)))).transpose(1, 2)


class Feed(nn.Module):
    """A feed-forward module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        return self.linear2(nn.functional.silu(self.linear1(self.norm(x))))


class Block(nn.Module):
    """A Conformer block."""

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.feed1, self.feed2 = Feed(width), Feed(width)
        self.norm_attention, self.norm_conv, self.norm_out = (nn.LayerNorm(width) for _ in range(3))
        self.self_attn, self.conv = RelativeAttention(width, heads), Convolution(width, kernel)

    def forward(self, x: Any, positions: Any) -> Any:
        x = x + 0.5 * self.feed1(x)
        x = x + self.self_attn(self.norm_attention(x), positions)
        x = x + self.conv(self.norm_conv(x))
        return self.norm_out(x + 0.5 * self.feed2(x))


class Encoder(nn.Module):
    """A Conformer encoder: two strided convolutions, a projection, blocks, and a table of positions."""

    def __init__(self, features: int = 16, width: int = 32, heads: int = 4, kernel: int = 7, layers: int = 2,
                 longest: int = 64) -> None:  # fmt: skip
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        self.out = nn.Linear(width * ((features + 3) // 4), width)
        self.layers = nn.ModuleList(Block(width, heads, kernel) for _ in range(layers))
        self.longest = longest
        self.register_buffer("pe", relative_positions(longest, width), persistent=False)

    def forward(self, x: Any) -> Any:
        x = nn.functional.relu(self.conv2(nn.functional.relu(self.conv1(x.unsqueeze(1)))))
        batch, width, steps, bands = x.shape
        x = self.out(x.transpose(1, 2).reshape(batch, steps, width * bands))
        positions = self.pe[:, self.longest - steps : self.longest + steps - 1]
        for layer in self.layers:
            x = layer(x, positions)
        return x


def relative_positions(longest: int, width: int) -> Any:
    """Sines and cosines of positions longest - 1 ... 1 - longest, (1, 2 longest - 1, width)."""
    place = torch.arange(longest - 1, -longest, -1.0)[:, None]
    rate = torch.exp(torch.arange(0, width, 2.0) * -(torch.log(torch.tensor(10000.0)) / width))
    table = torch.zeros(2 * longest - 1, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
    return table[None]


class Recurrent(nn.Module):
    """A recurrent stack, a norm, GELU and a linear layer."""

    def __init__(self, kind: type[nn.Module], inputs: int = 8, cells: int = 16, layers: int = 2, both: bool = False,
                 bias: bool = True) -> None:  # fmt: skip
        super().__init__()
        self.rnn = kind(inputs, cells, layers, bidirectional=both, batch_first=True, bias=bias)
        self.norm, self.out = nn.LayerNorm(cells * (1 + both)), nn.Linear(cells * (1 + both), 5)

    def forward(self, x: Any) -> Any:
        return self.out(nn.functional.gelu(self.norm(self.rnn(x)[0])))


class TransducerEncoder(nn.Module):
    """The encoder of MLPerf's RNN-T, its sizes by `scale`."""

    def __init__(self, inputs: int = 240, cells: int = 1024) -> None:
        super().__init__()
        self.pre, self.post = nn.LSTM(inputs, cells, 2), nn.LSTM(2 * cells, cells, 3)

    def forward(self, x: Any) -> Any:
        y, _ = self.pre(x)
        steps, batch, cells = y.shape
        y = y.transpose(0, 1).reshape(batch, steps // 2, 2 * cells).transpose(0, 1)
        return self.post(y)[0]


class Prediction(nn.Module):
    """An embedding and a recurrent stack, with states in and out."""

    def __init__(self, labels: int = 28, cells: int = 320) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(labels, cells), nn.LSTM(cells, cells, 2)

    def forward(self, label: Any, hidden: Any, cell: Any) -> Any:
        y, (hidden, cell) = self.rnn(self.embed(label), (hidden, cell))
        return y, hidden, cell


class Joint(nn.Module):
    """Concatenation, a hidden layer, labels."""

    def __init__(self, encoder: int = 1024, prediction: int = 320, hidden: int = 512, labels: int = 29) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(encoder + prediction, hidden), nn.Linear(hidden, labels)

    def forward(self, f: Any, g: Any) -> Any:
        return self.out(torch.relu(self.hidden(torch.cat([f, g], dim=-1))))


def export(module: Any, inputs: Sequence[Any], path: Path, *, dynamo: bool = False, **more: Any) -> Path:
    """Export by one of torch's two ways, without its messages; skips when the new one cannot run."""
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch.onnx.export(dynamo=True) needs onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), tuple(inputs), str(path), dynamo=dynamo, **more)
    return path


def parameters(module: Any) -> int:
    """All parameters of a module."""
    return sum(each.numel() for each in module.parameters())


def macs(module: Any, inputs: Sequence[Any]) -> dict[str, int]:
    """Multiplications of each module with weights, and of attention, counted from shapes that hooks see."""
    found: dict[str, int] = {}
    handles = []
    for name, each in module.named_modules():
        if isinstance(each, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU, RelativeAttention)):
            handles.append(each.register_forward_hook(_counter(found, name)))
    with torch.no_grad():
        module.eval()(*inputs)
    for handle in handles:
        handle.remove()
    return found


def _counter(found: dict[str, int], name: str) -> Any:
    def count(module: Any, inputs: Any, output: Any) -> None:
        x = inputs[0]
        if isinstance(module, nn.Linear):
            found[name] = x.numel() * module.out_features
        elif isinstance(module, (nn.LSTM, nn.GRU)):
            rows = x.shape[0] * x.shape[1]
            found[name] = rows * sum(w.numel() for key, w in module.named_parameters() if key.startswith("weight"))
        elif isinstance(module, RelativeAttention):
            batch, steps, width = x.shape
            found[name] = batch * width * steps * (2 * steps + (2 * steps - 1))
        else:
            found[name] = output.numel() * prod(module.weight.shape[1:])

    return count
