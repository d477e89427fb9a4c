"""Constants: activations that no operation writes and no caller gives, such as the encodings of positions."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.execute.operations.base import Array, Operation, Parameters, Run
from hwsim.trace import Role


class Constant(Operation):
    """An activation that comes with the parameters: codes of its grid, or reals."""

    def __init__(self, name: str, given: Parameters) -> None:
        tensor = given.network.tensors[name]
        super().__init__(tensor.layer, (), (name,))
        self.value = given.network.accept(name, given.array(tensor))

    def run(self, run: Run) -> None:
        """Store it."""
        run.keep(self.writes[0], self.value)

    def parameters(self) -> dict[str, Array]:
        """The value."""
        return {self.writes[0]: self.value}


def read_constants(given: Parameters, operations: Sequence[Operation]) -> list[Operation]:
    """The activations whose codes were given. Raises HwsimError for one that an operation writes."""
    written = {name for operation in operations for name in operation.writes}
    names = [name for name in given.names if given.network.tensors[name].role == Role.ACTIVATION]
    for name in names:
        if name in written:
            raise HwsimError(f"codes: {name} must be a parameter or a constant, got what an operation writes")
    return [Constant(name, given) for name in names]
