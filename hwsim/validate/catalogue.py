"""A network of the catalogue with float weights, quantized by a precision policy: an executable to validate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.executor import Executable
from hwsim.extract import Workload
from hwsim.extract.lstm import LstmLayer
from hwsim.extract.rnnt import emit_encoder
from hwsim.extract.spec import LstmStackSpec, NetworkSpec
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand
from hwsim.validate.quantize import FEATURES, Quantized
from hwsim.validate.weights import parameters_of

Array = npt.NDArray[Any]


def catalogue_executable(
    workload: Workload, policy: PrecisionPolicy, found: Mapping[str, Array], inputs: Mapping[str, Array], path: Path
) -> tuple[Executable, dict[str, Array], tuple[str, ...]]:
    """The executable of the parts of a network whose inputs are given, its parameters, and what its grids assume.

    `found`: the tensors of the weights file `path`. `inputs`: `encoder.input.features` (T, K), and
    `prediction.embedding.labels` (T,) and so on for the prediction network and the language models, each run over a
    sequence of labels. The grids are those of `Quantized`. Raises HwsimError for names and formats that do not fit.
    """
    _check_encoder(workload.spec, policy, inputs)
    trace = network_trace(workload.spec, inputs).with_precision(_for_parts(policy))
    reals = parameters_of(trace, found, path)
    quantized = Quantized(policy)
    for tensor in trace.tensors:
        if tensor.role in (Role.WEIGHT, Role.BIAS):
            quantized.parameter(tensor, reals[tensor.name])
    quantized.activations(trace, found, inputs, reals)
    return Executable(trace, quantized.codes, quantized.grids), quantized.codes, tuple(quantized.notes)


def network_trace(spec: NetworkSpec, inputs: Mapping[str, Array]) -> Trace:
    """The parts of a network whose inputs are given, over as many steps as those have."""
    stacks: dict[str, LstmStackSpec] = {"prediction": spec.prediction}
    stacks.update(spec.language_models)  # type: ignore[arg-type]
    known = (FEATURES, *(f"{name}.embedding.labels" for name in stacks))
    for name, array in inputs.items():
        if name not in known:
            raise HwsimError(f"'{name}' must be an input of {spec.name}{nearest(name, known)}")
        if not array.ndim or not len(array):
            raise HwsimError(f"{name} must have at least one step, got shape {array.shape}")
    b = TraceBuilder(spec.name)
    if FEATURES in inputs:
        emit_encoder(b, spec.encoder, len(inputs[FEATURES]), whole=True)
    for name, stack in stacks.items():
        if f"{name}.embedding.labels" in inputs:
            emit_sequence(b, name, stack, len(inputs[f"{name}.embedding.labels"]))
    return b.build()


def emit_sequence(b: TraceBuilder, name: str, spec: LstmStackSpec, steps: int) -> None:
    """A prediction network or language model over a sequence of labels, (steps,) -> hidden states or log p."""
    labels = b.tensor(f"{name}.embedding.labels", Role.STATE, (steps,))
    table = b.tensor(f"{name}.embedding.table", Role.WEIGHT, (spec.vocabulary, spec.embedding))
    row = b.tensor(f"{name}.embedding.row", Role.ACTIVATION, (steps, spec.embedding))
    size = spec.embedding
    b.op(Kind.LOOKUP, f"{name}.embedding", [Operand(table, size), Operand(labels, 1)], [Operand(row, size)],
         m=steps, n=size)  # fmt: skip
    x = [row]
    for layer in range(spec.layers):
        lstm = LstmLayer.declare(b, f"{name}.layer{layer}", spec.layer_input(layer), spec.cells, steps, steps=True)
        lstm.project_input(b, x, steps)
        with b.loop(steps):
            lstm.step(b, 1)
        x = [row, lstm.h] if spec.dense_inputs else [lstm.h]
    if spec.outputs is not None:
        layer_name = f"{name}.output"
        weight = b.tensor(f"{layer_name}.weight", Role.WEIGHT, (spec.cells, spec.outputs))
        bias = b.tensor(f"{layer_name}.bias", Role.BIAS, (spec.outputs,))
        logits, log_p = (b.tensor(f"{layer_name}.{part}", Role.STATE, (steps, spec.outputs)) for part in
                         ("logits", "log_probabilities"))  # fmt: skip
        b.matmul(layer_name, [lstm.h], weight, logits, m=steps, bias=bias)
        outputs = spec.outputs
        b.op(Kind.SOFTMAX, layer_name, [Operand(logits, outputs)], [Operand(log_p, outputs)], m=steps, n=outputs)


def _check_encoder(spec: NetworkSpec, policy: PrecisionPolicy, inputs: Mapping[str, Array]) -> None:
    """Raises HwsimError for two encoders, and for integer activations of a Conformer, whose ranges no file says."""
    if FEATURES in inputs and spec.encoder.kind in ("cascaded", "bifocal"):
        raise HwsimError(f"an encoder to be validated must be one, of kind lstm or conformer, got {spec.encoder.kind}")
    fmt = policy.resolve("encoder.layer0.attention").activations
    if FEATURES in inputs and spec.encoder.kind == "conformer" and not fmt.is_float:
        raise HwsimError(f"activations of a Conformer encoder must be of fp16 or fp32, got {fmt}: a weights file has "
                         "no grids for them, an executable of a trained network has")  # fmt: skip


def _for_parts(policy: PrecisionPolicy) -> PrecisionPolicy:
    """The policy with rules that may match nothing: a part of a network has not all of its layers."""
    rules = tuple((glob, replace(partial, optional=True)) for glob, partial in policy.rules)
    return PrecisionPolicy(policy.name, rules, policy.default, policy.assumption)
