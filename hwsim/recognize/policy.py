"""The number formats of a recognizer as a precision policy, so that what is timed is what was decoded."""

from __future__ import annotations

from hwsim.execute.executor import Executable
from hwsim.execute.projection import Coding
from hwsim.numerics import NumberFormat, PrecisionPolicy
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.policy import LayerPrecision, PartialPrecision
from hwsim.recognize.recognizer import Recognizer
from hwsim.trace import Role, Tensor

ASSUMPTION = "cell states and gate sums are timed in fp16 and biases in fp32; the decode computes them in float64"
RESIDUAL = "; residual sums are timed in fp16 and decoded on a grid of 16 bits"
_STATE, _BIAS = NumberFormat("fp16"), NumberFormat("fp32")


def policy_of(recognizer: Recognizer, name: str) -> PrecisionPolicy:
    """One rule for each layer with weights: their format, and that of the activations that meet them.

    And one for each layer without, such as attention: the widest of the grids of its activations.
    """
    rules: dict[str, PartialPrecision] = {}
    for executable in recognizer.networks.values():
        inputs = _inputs(executable)
        for tensor in executable.trace.tensors:
            if tensor.role == Role.WEIGHT:
                coding = executable.quantizers.get(tensor.name)
                weights = weight_format(tensor, None if isinstance(coding, DynamicGrid) else coding)
                activations = inputs.get(tensor.name, NumberFormat(weights.compute))
                rules[tensor.layer] = PartialPrecision(weights, activations, _STATE, _BIAS, optional=True)
        for layer, bits in _activation_bits(executable).items():
            rules.setdefault(layer, PartialPrecision(activations=NumberFormat(f"int{bits}"), optional=True))
    default = LayerPrecision(*([_STATE] * 4))
    sums = any(name.endswith(".sum") for each in recognizer.networks.values() for name in each.quantizers)
    return PrecisionPolicy(name, tuple(rules.items()), default, ASSUMPTION + (RESIDUAL if sums else ""))


def weight_format(tensor: Tensor, coding: Coding | None) -> NumberFormat:
    """The format of a weight from its codes' grid, with the N:M rule of its tensor; fp16 of reals that are halves."""
    declared = NumberFormat.parse(tensor.format)
    if coding is None:
        return declared
    if isinstance(coding, Codebook):
        return NumberFormat(f"codebook{coding.bits}", sparsity=declared.sparsity)
    granularity = "group" if coding.group_size else "channel" if coding.scale.size > 1 else "tensor"
    return NumberFormat(
        f"int{coding.bits}", granularity, coding.group_size, bool(coding.zero_point.any()), declared.sparsity  # type: ignore[arg-type]
    )  # fmt: skip


def _activation_bits(executable: Executable) -> dict[str, int]:
    """The most bits of a grid of an activation, by layer."""
    found: dict[str, int] = {}
    for tensor in executable.trace.tensors:
        grid = executable.quantizers.get(tensor.name)
        if tensor.role == Role.ACTIVATION and grid is not None:
            found[tensor.layer] = max(grid.bits, found.get(tensor.layer, 0))
    return found


def _inputs(executable: Executable) -> dict[str, NumberFormat]:
    """Of each product's weight: the integer format of its activations."""
    found = {}
    for name, projection in executable.projections.items():
        grid = getattr(projection, "input", None)
        if grid is not None:
            found[name] = NumberFormat(f"int{grid.bits}")
    return found
