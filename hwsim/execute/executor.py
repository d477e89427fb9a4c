"""The second reading of the trace: the same operations, run on integer codes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.execute.operations import read_operations
from hwsim.execute.operations.base import INPUT, Array, Network, Parameters, Run
from hwsim.execute.operations.recurrent import Recurrence
from hwsim.execute.projection import AnyProjection, Sums, storage
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.trace import Role, Tensor, Trace

Outputs = dict[str, Array]


class Executable:
    """A trace with its weights, ready to run on codes.

    `codes`: by tensor name, the integer codes of weights and embedding tables that have a quantizer, and reals for
    those that have none; biases are reals. `quantizers`: by tensor name, the grids of weights and of activations;
    an activation without one stays a real (float64). `"<weight>.input"` is the grid on which a product takes its
    activations when they are stored on another one, or as reals.
    `rules`: what an LSTM does between its gate sums and its states. `semantics`: the machine's rules for sums; others
    than `training` run through the readable reference, step by step, and are slow.

    Per layer, all in float64: y = sum (x - zx)(w - zw) (sx sw) + b, then codes by the grid of the output, if any; a
    profile with an integer bias requantizes the sum instead (`reference.linear`). Element-wise functions are computed
    in the order of the training graph. LSTM: (y_x) + (y_h), tables, c real or on a grid, h on its grid
    (`reference.recurrent`). Softmax without a function is its logarithm.
    Raises HwsimError for operations that are not executed, missing or surplus names and codes out of range.
    """

    def __init__(
        self,
        trace: Trace,
        codes: Mapping[str, Array],
        quantizers: Mapping[str, Quantizer],
        *,
        rules: LstmRules | None = None,
        semantics: Semantics = TRAINING,
    ) -> None:
        tensors = {tensor.name: tensor for tensor in trace.tensors}
        _check_names(tensors, codes, quantizers)
        self.trace = trace
        self.network = Network(tensors, dict(quantizers), rules or LstmRules(), semantics)
        self.operations = read_operations(trace, Parameters(self.network, codes))
        for name, quantizer in quantizers.items():
            if name in tensors and tensors[name].role != Role.WEIGHT:
                storage(quantizer)

    @property
    def quantizers(self) -> Mapping[str, Quantizer]:
        """The grids that it was given, by name."""
        return self.network.quantizers

    @property
    def rules(self) -> LstmRules:
        """What an LSTM does between its gate sums and its states."""
        return self.network.rules

    @property
    def semantics(self) -> Semantics:
        """The machine's rules for sums."""
        return self.network.semantics

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names that `run` must be given: what an operation reads and none before it writes."""
        read: dict[str, None] = {}
        written: set[str] = set()
        for operation in self.operations:
            read.update((name, None) for name in operation.reads if name not in written)
            written.update(operation.writes)
        return tuple(read)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that `run` returns: all that operations write but the gate sums of LSTM layers."""
        gates = {name for loop in self._loops for name in loop.reads}
        names = (name for operation in self.operations for name in operation.writes)
        return tuple(dict.fromkeys(name for name in names if name not in gates))

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cell states of recurrent layers, of which `run` returns the last."""
        return tuple(d.c for loop in self._loops for d in loop.directions)

    @property
    def states(self) -> dict[str, str]:
        """The hidden state beside each cell state, by its name."""
        return {d.c: d.h for loop in self._loops for d in loop.directions}

    @property
    def reversed_outputs(self) -> tuple[str, ...]:
        """Names of the hidden states that are computed from the last step to the first."""
        return tuple(d.h for loop in self._loops for d in loop.directions if d.reverse)

    @property
    def projections(self) -> dict[str, AnyProjection]:
        """The packed weights by name."""
        return {name: found for operation in self.operations for name, found in operation.projections().items()}

    def parameters(self) -> dict[str, Array]:
        """Codes (or reals) of weights, biases and tables: with `quantizers` what an equal executable is built from."""
        return {name: found for operation in self.operations for name, found in operation.parameters().items()}

    def run(self, inputs: Mapping[str, Array], forced: Mapping[str, Array] | None = None) -> Outputs:
        """Execute: codes (in their storage type) of every output with a quantizer, float64 of the others.

        `inputs`: by name, of the tensor's shape: integer codes, or reals that are quantized here; labels for an
        embedding. `forced` is teacher forcing: each operation reads these tensors in place of what came out before
        it, a recurrent layer at every time step; with the cell states `c` of every step, (T, H) reals, those too.
        An LSTM's `h` is (T, H), its `c` the last one (1, H). Raises HwsimError for names, shapes and types that do
        not fit, and for NaN.
        """
        written = self._run(inputs, forced, None).written
        return {name: value for name, value in written.items() if not isinstance(value, Sums)}

    def unrounded(self, inputs: Mapping[str, Array], forced: Mapping[str, Array]) -> dict[str, Reals]:
        """Every output with a grid before it was rounded, in steps of the grid, float64: ties lie at halves.

        Arguments of `run`; recurrent layers are given for what is forced of them.
        """
        steps: dict[str, Reals] = {}
        self._run(inputs, forced, steps)
        return steps

    def _run(
        self, inputs: Mapping[str, Array], forced: Mapping[str, Array] | None, steps: dict[str, Reals] | None
    ) -> Run:
        known, network = self.inputs, self.network
        unknown = [name for name in inputs if name not in known]
        missing = [name for name in known if name not in inputs]
        if unknown:
            raise HwsimError(f"unknown input '{unknown[0]}'{nearest(unknown[0], known)}")
        if missing:
            raise HwsimError(f"inputs must hold {', '.join(known)}, got no {missing[0]}")
        values = {name: network.accept(name, np.asarray(array)) for name, array in inputs.items()}
        teacher = None
        if forced is not None:
            teacher = {name: network.accept(name, np.asarray(array)) for name, array in forced.items()}
        run = Run(network, values, teacher, steps)
        for operation in self.operations:
            operation.run(run)
        for name in self.outputs:
            if isinstance(run.written[name], Sums):
                run.written[name] = run.written[name].values()
        return run

    def dequantize(self, name: str, codes: Array) -> Reals:
        """Reals of a tensor, float64: the values of its codes, or what it holds when it has no quantizer."""
        return self.network.reals(name, codes)

    @property
    def _loops(self) -> list[Recurrence]:
        return [operation for operation in self.operations if isinstance(operation, Recurrence)]


def _check_names(
    tensors: Mapping[str, Tensor], codes: Mapping[str, Array], quantizers: Mapping[str, Quantizer]
) -> None:
    for what, names in (("codes", codes), ("quantizers", quantizers)):
        for name in names:
            if name.removesuffix(INPUT) not in tensors and name not in tensors:
                raise HwsimError(f"{what}: unknown tensor '{name}'{nearest(name, tensors)}")
