"""A whole LSTM layer over a batch as one function, with a gradient written by hand: training's inner loop.

The gates are torch's sigmoid and tanh; the tables that the executor reads are within 2^-13 of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import Quantizer


def lstm_sequence(gates: Tensor, weight: Tensor, hidden: Quantizer | None) -> Tensor:
    """h (T, B, H) on the grid `hidden`, from gate sums (T, B, 4H) of input and biases, in the order i, f, g, o.

    `weight`: (H, 4H), of h. From zero states. Gradients pass the grid as they are: h is within -1 to 1, and so must be
    the grid. Raises HwsimError for a grid that is not symmetric.
    """
    grid = None
    if hidden is not None:
        if hidden.scale.size != 1 or hidden.zero_point.any() or hidden.half_step:
            raise HwsimError("the grid of a hidden state must have one scale and a level at zero, without zero point")
        grid = (float(hidden.scale), *hidden.code_range)
    h: Tensor = _LstmSequence.apply(gates, weight, grid)  # type: ignore[no-untyped-call]
    return h


class _LstmSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, grid: tuple[float, int, int] | None) -> Tensor:
        steps, batch, width = gates.shape
        cells = width // 4
        active = torch.empty_like(gates)
        c, tanh_c, h = (gates.new_empty(steps, batch, cells) for _ in range(3))
        before_h, before_c = gates.new_zeros(batch, cells), gates.new_zeros(batch, cells)
        for t in range(steps):
            now = active[t]
            torch.addmm(gates[t], before_h, weight, out=now)
            now[:, : 2 * cells].sigmoid_()
            now[:, 2 * cells : 3 * cells].tanh_()
            now[:, 3 * cells :].sigmoid_()
            i, f, g, o = now.chunk(4, dim=1)
            torch.mul(f, before_c, out=c[t]).addcmul_(i, g)
            torch.tanh(c[t], out=tanh_c[t])
            torch.mul(o, tanh_c[t], out=h[t])
            if grid is not None:
                h[t].div_(grid[0]).round_().clamp_(grid[1], grid[2]).mul_(grid[0])
            before_h, before_c = h[t], c[t]
        ctx.save_for_backward(active, c, tanh_c, h, weight)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        active, c, tanh_c, h, weight = ctx.saved_tensors
        steps, batch, cells = h.shape
        before_c, before_h = (torch.cat([torch.zeros_like(x[:1]), x[:-1]]) for x in (c, h))
        i, f, g, o = active.chunk(4, dim=2)
        by_c = torch.stack([g * i * (1 - i), before_c * f * (1 - f), i * (1 - g * g)], dim=2)
        by_o, c_by_h = tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c)
        sums = torch.empty_like(active)
        parts = sums.view(steps, batch, 4, cells)
        dh, dc, back = gradient[-1], torch.zeros_like(c[0]), weight.T.contiguous()
        for t in range(steps - 1, -1, -1):
            dc = torch.addcmul(dc, dh, c_by_h[t])
            torch.mul(by_c[t], dc[:, None], out=parts[t, :, :3])
            torch.mul(by_o[t], dh, out=parts[t, :, 3])
            if t:
                dh = torch.addmm(gradient[t - 1], sums[t], back)
                dc = dc * f[t]
        flat = sums.reshape(-1, 4 * cells)
        return sums, before_h.reshape(-1, cells).T @ flat, None
