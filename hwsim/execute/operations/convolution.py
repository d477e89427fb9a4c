"""Convolutions over time, and over time and frequency: packed products of windows, and depthwise sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hwsim.errors import HwsimError
from hwsim.execute.dynamic import DynamicCodes
from hwsim.execute.operations.base import INPUT, Array, Operation, Parameters, Run, names
from hwsim.execute.operations.product import weight_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.packing import INT32_MAX
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums
from hwsim.execute.reference.linear import depthwise_sums, product_scale
from hwsim.execute.semantics import Semantics
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.trace import Kind, Tensor

Padding = tuple[tuple[int, int], ...]


class Convolution(Operation):
    """CONV1D: out (T', N) of x (T, Cin) and weights (Kt, Cin, N); CONV2D: out (T', F', N) of x (T, F, Cin) and weights
    (Kt, Kf, Cin, N). x of a CONV2D with Cin = 1 may be (T, F).

    Each output position is the product of one window, flattened to K in the order of the weights' axes, with the
    packed weights: sums, codes and profiles are those of a `Product`. Padding is the zero point of the input's grid,
    a real zero. Window t of a CONV1D has its tap k at the padded row first + t stride + k dilation.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(1, weights=1, biases=(0, 1))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        axes = 1 if row.kind == Kind.CONV1D else 2
        self.weight, self.bias = _parameters(row, axes + 2)
        self.kernel, (channels, outputs) = self.weight.shape[:axes], self.weight.shape[axes:]
        x = row.activations[0].shape
        self.shape = (*x[:axes], channels)
        if len(self.shape) != axes + 1:
            raise row.refuse(f"must read an activation of {axes + 1} axes, got {x}")
        self.padding, self.stride = _padding(row, axes), _stride(row, axes)
        self.first, self.dilation = _count(row, "first", 0, axes), _count(row, "dilation", 1, axes)
        spans = tuple((taps - 1) * self.dilation + 1 for taps in self.kernel)
        left = (self.shape[0] - self.first, *self.shape[1:axes])
        self.steps = _steps(row, left, spans, self.padding, self.stride)
        row.expect_shapes(x if (*x, 1) == self.shape else self.shape, (*self.steps, outputs))
        _expect_sizes(row, (int(np.prod(self.steps)), int(np.prod(self.weight.shape[:-1])), outputs, 1))
        self.projection = given.projection(self.weight, self.bias, self.reads[0], matrix=False)
        self.streams = False
        found = self.projection.dynamic if isinstance(self.projection, PackedProjection) else None
        if found is not None and found.per != "tensor":
            raise row.refuse("must have a grid that is fixed or of the whole tensor, got one of each row")

    def run(self, run: Run) -> None:
        """Store the sums, or their codes."""
        chosen = self.projection
        if isinstance(chosen, PackedProjection) and chosen.dynamic is not None:
            found = DynamicCodes.of(chosen.dynamic, run.reals(self.reads[0]))
            sums = chosen.row_sums(DynamicCodes(self._windows(found.codes, 0), found.scales.reshape(1, 1)))
        else:
            grid = chosen.input if isinstance(chosen, PackedProjection) else None
            fill = 0 if grid is None else int(grid.zero_point.reshape(()))
            sums = chosen.sums(self._windows(run.codes(self.reads[0], grid), fill))
        run.put(self.writes[0], replace(sums, integers=sums.integers.reshape(-1, *self.steps, self.projection.outputs)))

    def _windows(self, x: Array, fill: int) -> Array:
        return windows(x.reshape(self.shape), self.kernel, self.stride, self.padding, fill, self.dilation, self.first)

    def parameters(self) -> dict[str, Array]:
        """Weight and bias."""
        return weight_codes(self.projection, self.weight, self.bias)

    def projections(self) -> dict[str, AnyProjection]:
        """The weight."""
        return {self.weight.name: self.projection}


class Depthwise(Operation):
    """out (T', C) of x (T, C) and weights (K, C): y = (sx sw) sum_k (x[t stride + k - left, c] - zx) w[k, c] + b.

    Weights symmetric, with one scale or C; or reals, which multiply reals. Padding is the input's zero point. Profiles:
    codes of the sums by `reference.linear.layer_codes`, as of a product; a narrow accumulator holds sum x w in the
    order of k (`depthwise_sums`).
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(1, weights=1, biases=(0, 1))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        weight, bias = _parameters(row, 2)
        depth, channels = weight.shape
        self.padding, self.stride = _padding(row, 1)[0], _stride(row, 1)[0]
        x = row.activations[0].shape
        (steps,) = _steps(row, x[:1], weight.shape[:1], (self.padding,), (self.stride,))
        row.expect_shapes((x[0], channels), (steps, channels))
        self.before = depth - 1
        self.streams = self.stride == 1 and self.padding == (self.before, 0)
        _expect_sizes(row, (steps, depth, 1, channels))
        self._given = {tensor.name: given.array(tensor) for tensor in (weight, bias) if tensor is not None}
        self.offsets = np.zeros(channels) if bias is None else given.reals(bias)
        self.grids = _depthwise_grids(weight.name, self.reads[0], given)
        self.kernel: Array = self._given[weight.name]
        self.scale = np.ones((1, channels))
        if self.grids is None:
            self.kernel = given.reals(weight)
            return
        input, weights = self.grids
        self.kernel = check_codes(self.kernel, weights.code_range, f"{weight.name}: weight codes")
        if weights.half_step:
            self.kernel, weights = weights.odd_codes(self.kernel)
            self.grids = input, weights
        self.scale = np.broadcast_to(product_scale(input, weights, weight.shape), (1, channels))

    def run(self, run: Run) -> None:
        """Store the sums, or their codes."""
        semantics = run.network.semantics
        sums: Array
        if self.grids is None:
            values = run.with_past(self.reads[0], None)
            sums = tap_sums(values, self.kernel, self._zeros(run), self.stride)
        else:
            input, padding = self.grids[0], self._zeros(run)
            codes = run.with_past(self.reads[0], input)
            if _fits(self.kernel, input, semantics):
                centred = codes.astype(np.int32) - np.int32(input.zero_point.reshape(()))
                sums = tap_sums(centred, self.kernel.astype(np.int32), padding, self.stride)
            else:
                sums = depthwise_sums(codes, self.kernel, input, *padding, self.stride, semantics)
        run.put(self.writes[0], Sums(sums[None], self.scale, self.offsets, self.grids, semantics))

    def carries(self) -> dict[str, int]:
        """The inputs that its next outputs read."""
        return {self.reads[0]: self.before} if self.streams and self.before else {}

    def _zeros(self, run: Run) -> tuple[int, int]:
        """The padding, in whose place are the rows of the piece before."""
        past = run.first.get(self.reads[0])
        return (self.padding[0] - (0 if past is None else len(past)), self.padding[1])

    def parameters(self) -> dict[str, Array]:
        """Weight and bias."""
        return dict(self._given)


def windows(
    x: Array, kernel: tuple[int, ...], stride: tuple[int, ...], padding: Padding, fill: int, dilation: int = 1,
    first: int = 0,
) -> Array:  # fmt: skip
    """Windows (positions, K) of `x` (T, [F,] C), each flattened in the order of the kernel's axes, then channels.

    Taps are `dilation` apart, and the first window begins at the padded row `first`.
    """
    axes, spans = tuple(range(len(kernel))), tuple((taps - 1) * dilation + 1 for taps in kernel)
    padded = np.pad(x, (*padding, (0, 0)), constant_values=fill)[first:]
    every = sliding_window_view(padded, spans, axis=axes)[tuple(slice(None, None, step) for step in stride)]
    taps = tuple(slice(None, None, dilation) for _ in kernel)
    every = every[(Ellipsis, *taps)]  # type: ignore[arg-type]
    channels_last = np.moveaxis(every, len(kernel), -1)
    return channels_last.reshape(int(np.prod(every.shape[: len(kernel)])), -1)


def tap_sums(x: Array, kernel: Array, padding: tuple[int, int], stride: int) -> Array:
    """sum_k x[t stride + k - left, c] kernel[k, c], `x` (T, C), padded with zeros, in the type of both, tap by tap."""
    padded = np.pad(x, (padding, (0, 0)))
    steps = (len(padded) - len(kernel)) // stride + 1
    total = np.zeros((steps, x.shape[1]), x.dtype)
    block = max(1, BLOCK_ELEMENTS // x.shape[1])
    for start in range(0, steps, block):
        part = total[start : start + block]
        scratch = np.empty_like(part)
        for k, tap in enumerate(kernel):
            first = start * stride + k
            np.multiply(padded[first : first + len(part) * stride : stride], tap, out=scratch)
            part += scratch
    return total


BLOCK_ELEMENTS = 2**14
"""Partial sums and products of so many elements stay in a core's first caches."""


def _fits(kernel: Array, input: Quantizer, semantics: Semantics) -> bool:
    """Whether no sum of codes, with or without their zero point, can leave a plain 32-bit accumulator."""
    low, high = input.code_range
    largest = max(abs(low), abs(high), high - low)
    reach: int = int(np.abs(kernel).sum(axis=0).max(initial=0)) * largest
    return semantics.accumulator_bits >= 32 and reach <= INT32_MAX


def _depthwise_grids(weight: str, x: str, given: Parameters) -> tuple[Quantizer, Quantizer] | None:
    network = given.network
    weights, input = network.grid(weight), network.grid(weight + INPUT) or network.grid(x)
    if weights is None:
        return None
    if any(network.dynamic(name) is not None for name in (weight + INPUT, x)) and input is None:
        raise HwsimError(f"{weight}: its activations must have a grid that is fixed, got one of run time")
    if input is None:
        raise HwsimError(f"{weight}: a quantizer must be given for {x} or {weight}{INPUT}, got neither")
    if input.scale.size != 1 or input.half_step:
        raise HwsimError(f"{weight}: its activations must have one scale and a level at zero")
    channels = network.tensors[weight].shape[1]
    if weights.zero_point.any() or weights.group_size or weights.scale.size not in (1, channels):
        raise HwsimError(f"{weight}: depthwise weights must have one scale or {channels}, no zero point and no groups")
    return input, weights


def _parameters(row: Row, rank: int) -> tuple[Tensor, Tensor | None]:
    assert row.weight is not None
    bias = row.biases[0] if row.biases else None
    if len(row.weight.shape) != rank:
        raise row.refuse(f"must have weights of {rank} axes, got {row.weight.shape}")
    if bias is not None and bias.shape != row.weight.shape[-1:]:
        raise row.refuse(f"must have a bias of {row.weight.shape[-1:]}, got {bias.shape}")
    return row.weight, bias


def _padding(row: Row, axes: int) -> Padding:
    """((before, after), ...) of each axis; the attribute is one pair for one axis."""
    value = row.attributes.get("padding", [0, 0] if axes == 1 else [[0, 0]] * axes)
    pairs = [value] if axes == 1 else value
    whole = isinstance(pairs, (list, tuple)) and len(pairs) == axes
    if not whole or not all(_counts(pair, 2, 0) for pair in pairs):
        form = "[before, after]" if axes == 1 else "[[before, after], [before, after]]"
        raise row.refuse(f"must have a padding {form} of 0 or more, got {value}")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _stride(row: Row, axes: int) -> tuple[int, ...]:
    value = row.attributes.get("stride", 1 if axes == 1 else [1] * axes)
    steps = [value] if axes == 1 else value
    if not _counts(steps, axes, 1):
        raise row.refuse(f"must have a stride of {axes} numbers of 1 or more, got {value}")
    return tuple(steps)


def _count(row: Row, name: str, least: int, axes: int) -> int:
    """`first` or `dilation` of a convolution over time; one over more axes has neither."""
    value = row.attributes.get(name, least)
    if not _counts([value], 1, least) or (axes > 1 and value != least):
        rule = f"of {least} or more" if axes == 1 else f"of {least}"
        raise row.refuse(f"must have a {name} {rule}, got {value}")
    return int(value)


def _counts(values: object, count: int, least: int) -> bool:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return False
    return all(type(value) is int and value >= least for value in values)


def _steps(
    row: Row, sizes: tuple[int, ...], kernel: tuple[int, ...], padding: Padding, stride: tuple[int, ...]
) -> tuple[int, ...]:
    """Output positions of each axis."""
    found = []
    for size, width, pair, step in zip(sizes, kernel, padding, stride, strict=False):
        if size + sum(pair) < width:
            raise row.refuse(f"must have padded steps that hold a kernel of {width}, got {size} padded by {pair}")
        found.append((size + sum(pair) - width) // step + 1)
    return tuple(found)


def _expect_sizes(row: Row, wanted: tuple[int, int, int, int]) -> None:
    found = (row.m, row.k, row.n, row.batch)
    if found != wanted:
        raise row.refuse(f"must have m, k, n and batch {wanted} by its shapes, got {found}")
