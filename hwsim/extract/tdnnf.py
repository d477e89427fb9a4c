"""Factored time-delay networks as operations: each layer at the frames that a later one needs, and at no others.

An utterance is extended by copies of its first and last frame, as many as the context, so that no layer pads anything.
Layers whose stride is a multiple of the subsampling run at the frames of the output; the one below them turns the rate,
and reads every frame. Source: Povey et al., Interspeech 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.extract.encoder_spec import TdnnfEncoderSpec
from hwsim.extract.layers import conv1d, linear, pointwise
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

Reals = npt.NDArray[np.float64]
AFFINE, PREFINAL = "affine", "prefinal"


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames first, first + step and so on, `count` of them; 0 is the first frame of the utterance."""

    first: int
    step: int
    count: int

    @property
    def last(self) -> int:
        """The last of them."""
        return self.first + self.step * (self.count - 1)


@dataclass(frozen=True, slots=True)
class FactoredLayer:
    """One factored layer, and the frames that it reads and gives."""

    width: int
    bottleneck: int
    stride: int
    bypass: float
    before: Frames
    after: Frames

    @property
    def turns(self) -> bool:
        """Whether it reads every frame and gives those of the output."""
        return self.before.step != self.after.step

    @property
    def dilation(self) -> int:
        """Rows between its two frames."""
        return self.stride // self.before.step

    @property
    def taps(self) -> int:
        """Frames that each of its matrices reads."""
        return 2 if self.stride else 1

    @property
    def bypass_rows(self) -> dict[str, int]:
        """Attributes of the bypass: the row of its input behind its first output, and rows from one to the next."""
        return {"first": self.dilation, "step": self.after.step // self.before.step}


def factored_layers(spec: TdnnfEncoderSpec, outputs: int) -> list[FactoredLayer]:
    """The factored layers, first to last, for `outputs` frames of the encoder."""
    after, found = Frames(0, spec.subsampling, outputs), list[FactoredLayer]()
    for stride, bottleneck in zip(reversed(spec.strides), reversed(spec.layer_bottlenecks), strict=True):
        if stride % after.step:
            before = Frames(after.first - stride, 1, after.last - after.first + 2 * stride + 1)
        else:
            before = Frames(after.first - stride, after.step, after.count + 2 * (stride // after.step))
        found.append(FactoredLayer(spec.width, bottleneck, stride, spec.bypass, before, after))
        after = before
    return found[::-1]


def input_frames(spec: TdnnfEncoderSpec, frames: int) -> Frames:
    """The frames of spliced features that the network reads for an utterance of `frames` frames."""
    return factored_layers(spec, -(-frames // spec.subsampling))[0].before


def outputs_of(spec: TdnnfEncoderSpec, rows: int) -> int:
    """Frames that the network gives for `rows` rows of input. Raises HwsimError for rows that it would not use up."""
    least, more = (factored_layers(spec, outputs)[0].before.count for outputs in (1, 2))
    count, rest = divmod(rows - least, more - least)
    if rest or count < 0:
        raise HwsimError(f"frames of the input must be {least} and a multiple of {more - least} more, got {rows}")
    return count + 1


def spliced_features(spec: TdnnfEncoderSpec, features: npt.ArrayLike, ivector: npt.ArrayLike = ()) -> Reals:
    """What the network reads, (rows, inputs): each frame between its neighbours, and the i-vector beside it.

    `features` (T, input); `ivector` (D,) of the utterance, or (T, D) of its frames. Frames before the first and after
    the last are copies of these. Raises HwsimError for other shapes.
    """
    x, beside = np.asarray(features, np.float64), np.asarray(ivector, np.float64)
    if x.ndim != 2 or x.shape[1] != spec.input or not len(x):
        raise HwsimError(f"features must be (frames, {spec.input}), got {x.shape}")
    if beside.shape not in ((spec.ivector,), (len(x), spec.ivector)):
        raise HwsimError(f"ivector must be ({spec.ivector},) or ({len(x)}, {spec.ivector}), got {beside.shape}")
    wanted = input_frames(spec, len(x))
    times = np.arange(wanted.first, wanted.last + 1, wanted.step)
    offsets = np.arange(-spec.splice, spec.splice + 1)
    around = x[np.clip(times[:, None] + offsets, 0, len(x) - 1)].reshape(len(times), -1)
    vectors = np.broadcast_to(beside, (len(x), spec.ivector))[np.clip(times, 0, len(x) - 1)]
    return np.concatenate([around, vectors], axis=1)


def emit_tdnnf_encoder(b: TraceBuilder, spec: TdnnfEncoderSpec, frames: int, name: str = "encoder") -> int:
    """Add the encoder over `frames` input frames; return `encoder.prefinal.small.out` (T', small).

    Reads `encoder.input.features` (rows, inputs), see `spliced_features`. Layers: `encoder.affine`; `.linear` and
    `.affine` of `encoder.layer0` and so on, whose `sum` is the residual stream after it; `encoder.prefinal`.
    """
    rows = input_frames(spec, frames).count
    x = b.tensor(f"{name}.input.features", Role.ACTIVATION, (rows, spec.inputs), f"{name}.{AFFINE}")
    return emit_tdnnf_layers(b, name, spec, x, -(-frames // spec.subsampling))


def emit_tdnnf_layers(b: TraceBuilder, name: str, spec: TdnnfEncoderSpec, x: int, outputs: int) -> int:
    """All layers on x (rows, inputs), for `outputs` frames of the encoder: `<name>.prefinal.small.out`."""
    layers, first = factored_layers(spec, outputs), f"{name}.{AFFINE}"
    rows = layers[0].before.count
    y = linear(b, first, [x], spec.inputs, spec.width, rows, role=Role.STATE)
    x = pointwise(b, first, Function.RELU, [y], spec.width, rows, part="relu")
    for index, layer in enumerate(layers):
        x = emit_factored_layer(b, f"{name}.layer{index}", layer, x)
    return emit_prefinal(b, f"{name}.{PREFINAL}", spec, x, layers[-1].after.count)


def emit_factored_layer(b: TraceBuilder, name: str, layer: FactoredLayer, x: int) -> int:
    """`<name>.sum` (T', width) = relu(affine(linear(x))) + bypass x, of x (T, width)."""
    width, size, rows = layer.width, layer.bottleneck, layer.after.count
    down, up = f"{name}.linear", f"{name}.{AFFINE}"
    if layer.turns:
        z = _both_phases(b, down, layer, x)
        y = linear(b, up, z, 2 * size, width, rows, role=Role.STATE)
    elif layer.stride == 0:
        z = [linear(b, down, [x], width, size, rows, bias=False)]
        y = linear(b, up, z, size, width, rows, role=Role.STATE)
    else:
        near = layer.dilation
        z = [conv1d(b, down, x, width, size, layer.before.count, kernel=2, dilation=near, bias=False)]
        y = conv1d(b, up, z[0], size, width, rows + near, kernel=2, dilation=near, role=Role.STATE)
    b.attributes(name, scale=layer.bypass, **layer.bypass_rows)
    return pointwise(b, name, Function.RELU_ADD, [y, x], width, rows, part="sum")


def _both_phases(b: TraceBuilder, name: str, layer: FactoredLayer, x: int) -> list[int]:
    """z(t) and z(t + stride) at the frames t of the output, two products with one matrix: `<name>.out`, `_late.out`."""
    width, size, rows = layer.width, layer.bottleneck, layer.after.count
    weight = b.tensor(f"{name}.weight", Role.WEIGHT, (2, width, size))
    found = []
    for layer_name, first in ((name, 0), (f"{name}_late", layer.stride)):
        out = b.tensor(f"{layer_name}.out", Role.ACTIVATION, (rows, size), name)
        b.attributes(layer_name, padding=[0, 0], stride=layer.after.step, dilation=layer.stride, first=first)
        read = 2 * rows * width
        reads = [Operand(x, fixed=read), Operand(weight, fixed=2 * width * size)]
        b.op(Kind.CONV1D, layer_name, reads, [Operand(out, size)], m=rows, k=2 * width, n=size)
        found.append(out)
    return found


def emit_prefinal(b: TraceBuilder, name: str, spec: TdnnfEncoderSpec, x: int, rows: int) -> int:
    """`<name>.small.out` (T', small): width to small, to large with a ReLU, to small."""
    small, large = spec.small, spec.large
    z = linear(b, f"{name}.linear", [x], spec.width, small, rows, bias=False)
    y = linear(b, f"{name}.{AFFINE}", [z], small, large, rows, role=Role.STATE)
    active = pointwise(b, f"{name}.{AFFINE}", Function.RELU, [y], large, rows, part="relu")
    return linear(b, f"{name}.small", [active], large, small, rows, bias=False)
