"""The second reading of the trace: the same operations, run on integer codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.execute.dynamic import SCALE, plain, reals_of
from hwsim.execute.operations import read_operations
from hwsim.execute.operations.base import INPUT, Array, Network, Operation, Parameters, Run
from hwsim.execute.operations.constant import Constant
from hwsim.execute.operations.recurrent import Recurrence, Step
from hwsim.execute.pieces import Pieces, most_rows
from hwsim.execute.projection import AnyGrid, AnyProjection, Sums, storage
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.rounding import Reals
from hwsim.trace import Role, Tensor, Trace

Outputs = dict[str, Array]


class Executable:
    """A trace with its weights, ready to run on codes.

    `codes`: by tensor name, the integer codes of weights and embedding tables that have a quantizer, and reals for
    those that have none; biases are reals. `quantizers`: by tensor name, the grids of weights and of activations;
    an activation without one stays a real (float64). `"<weight>.input"` is the grid on which a product takes its
    activations when they are stored on another one, or as reals. A `DynamicGrid` in the place of an activation's is
    found at run time, for each row or the whole tensor; its scales are the output `"<name>.scale"`. Codes (or reals) of
    an activation that no operation writes make it a constant, not an input. In a trace with a precision, weights and
    activations of format fp16 without a quantizer are halves: products as in `reference.half`, summed in float32 in the
    order of K; other operations in float64, rounded to half where the result is stored.
    `rules`: what an LSTM does between its gate sums and its states. `semantics`: the machine's rules for sums; others
    than `training` run through the readable reference, step by step, and are slow.

    Per layer, all in float64: y = sum (x - zx)(w - zw) (sx sw) + b, then codes by the grid of the output, if any; a
    profile with an integer bias requantizes the sum instead (`reference.linear`). Element-wise functions are computed
    in the order of the training graph. LSTM: (y_x) + (y_h), tables, c real or on a grid, h on its grid
    (`reference.recurrent`). Softmax without a function is its logarithm.
    Under the profile `tflite-lstm` LSTMs are those of LiteRT (`reference.lstm_8x8_16`).
    Raises HwsimError for operations that are not executed, missing or surplus names and codes out of range.
    """

    def __init__(
        self,
        trace: Trace,
        codes: Mapping[str, Array],
        quantizers: Mapping[str, AnyGrid],
        *,
        rules: LstmRules | None = None,
        semantics: Semantics = TRAINING,
    ) -> None:
        tensors = {tensor.name: tensor for tensor in trace.tensors}
        _check_names(tensors, codes, quantizers)
        self.trace = trace
        self.network = Network(tensors, dict(quantizers), rules or LstmRules(), semantics)
        self.operations = read_operations(trace, Parameters(self.network, codes))
        for name in quantizers:
            if name in tensors and tensors[name].role != Role.WEIGHT and self.network.dynamic(name) is None:
                storage(self.network.quantizer(name))
        self._loops = tuple(operation for operation in self.operations if isinstance(operation, Recurrence))
        self._inputs, self._outputs = _inputs(self.operations), _outputs(self.operations, self.network)
        self._pieces = Pieces(self.operations, self.network)
        constants = (name for name in codes if name in tensors and tensors[name].role == Role.ACTIVATION)
        self._rows = most_rows(trace, constants)

    @property
    def quantizers(self) -> Mapping[str, AnyGrid]:
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
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that `run` returns: all that operations write but the gate sums of recurrent layers.

        After a tensor on a grid of run time `<name>.scale`.
        """
        return self._outputs

    @property
    def rows(self) -> int | None:
        """The most rows of the inputs, when `run` takes fewer as well; None when it takes the trace's own number.

        All operations must work row by row, such as a step of a search, be recurrent loops over the rows, such as an
        encoder's over frames, or Conformer blocks over them; where frames are stacked, their number must be a multiple.
        """
        return self._rows

    @property
    def streams(self) -> bool:
        """Whether an utterance may be run in pieces, each from the `states_after` the one before, to the same codes.

        No frame may depend on one of a later piece: loops forward, attention of a limited left context that sees
        no frame after its own or its chunk, causal convolutions. A piece before the last is a multiple of `chunk`.
        """
        return self._pieces.streams

    @property
    def chunk(self) -> int:
        """Rows of attention that see each other."""
        return self._pieces.chunk

    @property
    def exact(self) -> bool:
        """Whether pieces of any length give the same bits: products of two activations are sums of integers.

        Otherwise the order of such a sum in floating point is that of its length.
        """
        return self._pieces.exact

    def states_after(self, outputs: Mapping[str, Array], states: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """What the next piece of a stream is run with, after one that was run with `states` and gave `outputs`.

        The last h and c of loops, the keys and values of attention's left context, the last inputs of convolutions.
        """
        return self._pieces.after(outputs, states or {})

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cell states of recurrent loops, of which `run` returns the last."""
        return tuple(d.c for loop in self._loops for d in loop.directions if d.c is not None)

    @property
    def states(self) -> dict[str, str]:
        """The hidden state beside each cell state, by its name."""
        return {d.c: d.h for loop in self._loops for d in loop.directions if d.c is not None}

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

    def run(
        self,
        inputs: Mapping[str, Array],
        forced: Mapping[str, Array] | None = None,
        states: Mapping[str, Array] | None = None,
    ) -> Outputs:
        """Execute: codes (in their storage type) of every output with a quantizer, float64 or halves of the others.

        `inputs`: by name, of the tensor's shape, or of fewer rows, see `rows`: integer codes, or reals that are
        quantized here (on a grid of run time reals alone); labels for an embedding. `forced` is teacher forcing: each
        operation reads these tensors in place of what came out before it, a recurrent layer at every time step; with
        the cell states `c` of every step, (T, H) reals or codes, those too. A loop's `h` is (T, H), its `c` the last
        one (1, H). Outside a loop the states of before are inputs, and the new ones outputs of the same names.
        `states`: of forward loops before their first step, h and c (1, H) by name, where they are not zero, and the
        rows that attention and convolutions keep of the frames before, see `states_after`: a stream goes on where its
        last piece ended.
        Raises HwsimError for names, shapes and types that do not fit, and for NaN.
        """
        written: dict[str, Array] = {}
        for name, value in self._run(inputs, forced, None, states).written.items():
            written |= plain(name, value)
        return {name: written[name] for name in self._outputs}

    def unrounded(self, inputs: Mapping[str, Array], forced: Mapping[str, Array]) -> dict[str, Reals]:
        """Every output with a grid before it was rounded, in steps of the grid, float64: ties lie at halves.

        Arguments of `run`; recurrent layers are given for what is forced of them.
        """
        steps: dict[str, Reals] = {}
        self._run(inputs, forced, steps)
        return steps

    def _run(
        self, inputs: Mapping[str, Array], forced: Mapping[str, Array] | None, steps: dict[str, Reals] | None,
        states: Mapping[str, Array] | None = None,
    ) -> Run:  # fmt: skip
        known, network = self.inputs, self.network
        unknown = [name for name in inputs if name not in known]
        missing = [name for name in known if name not in inputs]
        if unknown:
            raise HwsimError(f"unknown input '{unknown[0]}'{nearest(unknown[0], known)}")
        if missing:
            raise HwsimError(f"inputs must hold {', '.join(known)}, got no {missing[0]}")
        given = {name: np.asarray(array) for name, array in inputs.items()}
        share = None if self._rows is None else (_given_rows(given, network.tensors, self._rows), self._rows)
        values = {name: network.accept(name, array, share) for name, array in given.items()}
        teacher = None
        if forced is not None:
            whole = _with_scales(network, forced)
            teacher = {name: network.accept(name, np.asarray(array), share) for name, array in whole.items()}
        run = Run(network, values, teacher, steps, self._pieces.first(states or {}))
        for operation in self.operations:
            operation.run(run)
        for name in self.outputs:
            if name in run.written and isinstance(run.written[name], Sums):
                run.written[name] = run.written[name].values()
        return run

    def dequantize(self, name: str, codes: Array) -> Reals:
        """Reals of a tensor, float64: the values of its codes, or what it holds when it has no quantizer.

        Raises HwsimError for codes of a grid of run time, which `reals` takes with their scales.
        """
        return self.network.reals(name, codes)

    def reals(self, name: str, outputs: Mapping[str, Array]) -> Reals:
        """Reals of one of the outputs of `run`."""
        if self.network.dynamic(name) is not None:
            return reals_of(outputs[name], outputs[name + SCALE])
        return self.network.reals(name, outputs[name])


def _check_names(tensors: Mapping[str, Tensor], codes: Mapping[str, Array], quantizers: Mapping[str, AnyGrid]) -> None:
    for what, names in (("codes", codes), ("quantizers", quantizers)):
        for name in names:
            if name.removesuffix(INPUT) not in tensors and name not in tensors:
                raise HwsimError(f"{what}: unknown tensor '{name}'{nearest(name, tensors)}")


def _inputs(operations: Sequence[Operation]) -> tuple[str, ...]:
    read: dict[str, None] = {}
    written: set[str] = set()
    for operation in operations:
        read.update((name, None) for name in operation.reads if name not in written)
        written.update(operation.writes)
    return tuple(read)


def _with_scales(network: Network, forced: Mapping[str, Array]) -> dict[str, Array]:
    """Forced tensors, codes and scales of a grid of run time as their reals, which find the same again."""
    found = {}
    for name, array in forced.items():
        dynamic = network.dynamic(name) is not None
        if not dynamic and network.dynamic(name.removesuffix(SCALE)) is not None and name.endswith(SCALE):
            continue
        found[name] = reals_of(array, forced[name + SCALE]) if dynamic and name + SCALE in forced else array
    return found


def _outputs(operations: Sequence[Operation], network: Network) -> tuple[str, ...]:
    gates: set[str] = set()
    for operation in operations:
        if isinstance(operation, Recurrence):
            gates.update(operation.reads)
        elif isinstance(operation, Step):
            gates.update((operation.gates.x, operation.gates.h_sums))
    made = (operation for operation in operations if not isinstance(operation, Constant))
    names = (name for operation in made for name in operation.writes)
    kept = dict.fromkeys(name for name in names if name not in gates)
    return tuple(n for name in kept for n in ((name, name + SCALE) if network.dynamic(name) else (name,)))


def _given_rows(inputs: Mapping[str, Array], tensors: Mapping[str, Tensor], most: int) -> int:
    """The rows of the inputs that have one for each. Raises HwsimError when they differ, or there are too many."""
    whole = [name for name in inputs if name in tensors and tensors[name].shape[0] == most] or list(inputs)
    counts = {name: inputs[name].shape[0] if inputs[name].ndim else 0 for name in whole}
    first = whole[0]
    for name, count in counts.items():
        if not 1 <= count <= most:
            raise HwsimError(f"{name}: must have 1 to {most} rows, got {count}")
        if count != counts[first]:
            raise HwsimError(f"{name}: must have the rows of {first}, {counts[first]}, got {count}")
    return counts[first]
