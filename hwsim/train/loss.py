"""The loss of an RNN transducer: minus the log of the summed probability of all alignments.

Forward and backward variables of Graves (2012), anti-diagonal by anti-diagonal: an alignment of T frames and U labels
is a path of T + U steps, each either blank (the next frame) or the next label.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hwsim.errors import HwsimError

BLANK = 0


def transducer_loss(log_probabilities: Tensor, labels: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """-log p(labels) of each utterance, (B,), with its gradient.

    `log_probabilities`: (B, T, U + 1, V), normalized over V, blank first; `labels`: (B, U) int64, what lies beyond
    `lengths` is not read; `frames` and `lengths`: (B,) int64, 1 to T and 0 to U. Raises HwsimError for other shapes.
    """
    batch, most_frames, rows, _ = log_probabilities.shape
    if labels.shape != (batch, rows - 1):
        raise HwsimError(f"labels must be of shape {(batch, rows - 1)}, got {tuple(labels.shape)}")
    for name, counts, least, most in (("frames", frames, 1, most_frames), ("lengths", lengths, 0, rows - 1)):
        if counts.shape != (batch,) or int(counts.min()) < least or int(counts.max()) > most:
            raise HwsimError(f"{name} must be {batch} numbers from {least} to {most}, got {counts.tolist()}")
    index = labels[:, None, :, None].expand(-1, most_frames, -1, -1)
    emit = log_probabilities[:, :, :-1].gather(3, index)[..., 0]
    loss: Tensor = _Lattice.apply(log_probabilities[..., BLANK], emit, frames, lengths)  # type: ignore[no-untyped-call]
    return loss


def _skewed(x: Tensor, frames: int) -> Tensor:
    """y[d, b, u] = x[b, d - u, u] of x (B, T, U): (T + U - 1, B, U), 0 where d - u is no frame."""
    batch, _, rows = x.shape
    wide = F.pad(x.transpose(1, 2), (0, rows))  # (B, U, T + U)
    flat = wide.reshape(batch, -1)[:, : rows * (frames + rows - 1)]
    return flat.reshape(batch, rows, frames + rows - 1).permute(2, 0, 1).contiguous()


def _straight(x: Tensor, frames: int) -> Tensor:
    """The inverse of `_skewed`."""
    diagonals, batch, rows = x.shape
    flat = F.pad(x.permute(1, 2, 0).reshape(batch, -1), (0, rows))
    return flat.reshape(batch, rows, diagonals + 1)[:, :, :frames].transpose(1, 2)


class _Lattice(torch.autograd.Function):
    """Minus the log likelihood from blanks (B, T, U + 1) and labels (B, T, U), both log probabilities."""

    @staticmethod
    def forward(ctx: Any, blank: Tensor, emit: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        batch, most, _ = blank.shape
        b = _skewed(blank, most)
        e = _skewed(F.pad(emit, (0, 1), value=-math.inf), most)
        alpha = torch.full_like(b, -math.inf)
        alpha[0, :, 0] = 0
        for d in range(1, len(alpha)):
            torch.add(alpha[d - 1], b[d - 1], out=alpha[d])
            alpha[d, :, 1:] = torch.logaddexp(alpha[d, :, 1:], alpha[d - 1, :, :-1] + e[d - 1, :, :-1])
            if d >= most:
                alpha[d, :, : d - most + 1] = -math.inf
        at = (frames + lengths - 1, torch.arange(batch, device=blank.device), lengths)
        total = alpha[at] + b[at]
        ctx.save_for_backward(alpha, b, e, total, *at)
        ctx.most = most
        return -total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        alpha, b, e, total, *at = ctx.saved_tensors
        last = tuple(at)
        beta = torch.full_like(b, -math.inf)
        beta[last] = b[last]
        for d in range(len(beta) - 2, -1, -1):
            onward = torch.logaddexp(beta[d + 1] + b[d], F.pad(beta[d + 1, :, 1:], (0, 1), value=-math.inf) + e[d])
            beta[d] = torch.maximum(beta[d], onward)  # one of them is -inf: a path ends, or goes on
        after = F.pad(beta[1:], (0, 0, 0, 0, 0, 1), value=-math.inf)
        blank = after.clone()
        blank[last] = 0
        weight = -gradient[None, :, None]
        blank = (alpha + blank + b - total[None, :, None]).exp_() * weight
        up = F.pad(after[:, :, 1:], (0, 1), value=-math.inf)
        emit = (alpha + up + e - total[None, :, None]).exp_() * weight
        return _straight(blank, ctx.most), _straight(emit, ctx.most)[..., :-1], None, None
