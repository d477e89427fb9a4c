"""A factored time-delay network as operations, with its codes and grids."""

from __future__ import annotations

from hwsim.extract import layers
from hwsim.extract.ctc import LAYER
from hwsim.extract.tdnnf import FactoredLayer, emit_tdnnf_layers, factored_layers, outputs_of
from hwsim.trace import Role
from hwsim.train.draft import Draft
from hwsim.train.emit_layers import fill_linear
from hwsim.train.tdnnf import QuantFactoredLayer, QuantTdnnf


def tdnnf(draft: Draft, name: str, part: QuantTdnnf) -> None:
    """All of a network, on spliced features, or on what the module before has written."""
    spec, b = part.spec, draft.builder
    outputs = outputs_of(spec, draft.frames)
    if not draft.x:
        draft.start(name, f"{name}.affine", spec.inputs, part.input_grid)
    x = draft.single(name, spec.inputs, None)
    small = emit_tdnnf_layers(b, name, spec, x, outputs)
    fill_linear(draft, f"{name}.affine", part.affine)
    draft.activation(f"{name}.affine.relu", part.affine_relu.output_grid)
    for index, (module, layer) in enumerate(zip(part.layers, factored_layers(spec, 1), strict=True)):
        _fill_layer(draft, f"{name}.layer{index}", module, layer)
    for title in ("linear", "affine", "small"):
        fill_linear(draft, f"{name}.prefinal.{title}", getattr(part, f"prefinal_{title}"))
    draft.activation(f"{name}.prefinal.affine.relu", part.prefinal_relu.output_grid)
    draft.frames, draft.x, draft.width = outputs, [small], spec.small
    if part.head is not None and part.outputs is not None:
        draft.x = [layers.linear(b, LAYER, draft.x, spec.small, part.outputs, outputs, role=Role.STATE)]
        fill_linear(draft, LAYER, part.head)
        draft.width = part.outputs


def _fill_layer(draft: Draft, name: str, part: QuantFactoredLayer, layer: FactoredLayer) -> None:
    """Weights are (2, K, N) where a convolution reads them, and (2 K, N) or (K, N) where a product does."""
    down = (2, layer.width, layer.bottleneck) if layer.taps > 1 else None
    up = (2, layer.bottleneck, layer.width) if layer.taps > 1 and not layer.turns else None
    for title, linear, shape in (("linear", part.linear, down), ("affine", part.affine, up)):
        draft.weight(f"{name}.{title}.weight", linear.weight.T, linear.weight_grid, shape)
        draft.activation(f"{name}.{title}.out", linear.output_grid)
    if layer.turns:
        draft.activation(f"{name}.linear_late.out", part.linear.output_grid)
    if part.affine.bias is not None:
        draft.reals(f"{name}.affine.bias", part.affine.bias)
    draft.activation(f"{name}.sum", part.stream_grid)
