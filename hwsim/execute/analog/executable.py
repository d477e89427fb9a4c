"""A chip: an executable whose products with weights are done on analog tiles."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from hwsim.errors import HwsimError, nearest
from hwsim.execute.analog.calibration import real_weights, with_projections
from hwsim.execute.analog.settings import AnalogSettings
from hwsim.execute.analog.tile import Tiles
from hwsim.execute.analog.times import check_time
from hwsim.execute.executor import Executable
from hwsim.execute.litert_lstm import PROFILE
from hwsim.execute.operations.base import Array, Operation


class AnalogExecutable(Executable):
    """The trace of an executable, run with its products on tiles that were programmed once.

    `base`: with weights of any format, dequantized. What is no product with a matrix (embeddings, pointwise parts of
    LSTMs, norms, softmax, attention's products of activations, depthwise convolutions) runs as it does in `base`, and
    tensors are stored as there: halves, codes of a grid, or float64. A grid of a product's input alone gives way to
    the DAC, and a profile's rules for sums to the ADC. Its parameters are those of `base`: what is saved is the digital
    network. `seed`: numbers that make the chip; the same ones give the same devices and the same noise.
    `t_s`: seconds since programming. `ranges`: alpha of products by the name of the weight (`input_ranges`); others
    take the greatest |x| of each input. Raises HwsimError for unknown names, a negative time, a matrix that fits no
    tile, and networks of the profile tflite-lstm.
    """

    def __init__(
        self,
        base: Executable,
        settings: AnalogSettings,
        seed: int | Sequence[int] = 0,
        t_s: float = 0.0,
        ranges: Mapping[str, float] | None = None,
    ) -> None:
        self.__dict__.update(base.__dict__)
        numbers = (seed,) if isinstance(seed, int) else tuple(seed)
        if not numbers or any(isinstance(each, bool) or not isinstance(each, int) or each < 0 for each in numbers):
            raise HwsimError(f"seed must be integers of 0 or more, got {seed}")
        if base.semantics.name == PROFILE:
            raise HwsimError(f"{base.trace.name}: the profile {PROFILE} must run in integers, not on analog tiles")
        self.settings, self.seed, self.t_s = settings, numbers, check_time(t_s)
        known = base.projections
        for name in ranges or {}:
            if name not in known:
                raise HwsimError(f"ranges: unknown weight '{name}'{nearest(name, known)}")
        check_globs(settings.digital, base.trace.layers)
        self.tiles = {
            name: Tiles(name, (real := real_weights(base, name, found)).weight, real.bias, settings, numbers, t_s,
                        (ranges or {}).get(name, 0.0))
            for name, found in known.items() if not self._is_digital(name)
        }  # fmt: skip
        self._base_operations = base.operations
        self.operations: list[Operation] = with_projections(base.operations, self.tiles)

    def at(self, t_s: float) -> AnalogExecutable:
        """The same chip at another time since programming; its noise begins anew. Raises HwsimError for t < 0."""
        found = copy.copy(self)
        found.t_s = check_time(t_s)
        found.tiles = {name: tiles.at(t_s) for name, tiles in self.tiles.items()}
        found.operations = with_projections(self._base_operations, found.tiles)
        return found

    def restart(self, number: int = 0) -> None:
        """Begin the noise of MVMs anew, as sequence `number`: an utterance's own noise, whatever was run before it."""
        for tiles in self.tiles.values():
            tiles.restart(number)

    def parameters(self) -> dict[str, Array]:
        """Codes, or reals, of the digital network."""
        return {name: found for operation in self._base_operations for name, found in operation.parameters().items()}

    @property
    def tile_count(self) -> int:
        """Tiles of the chip, no tile shared by two matrices."""
        return sum(rows * columns for rows, columns in (each.devices.tile_count for each in self.tiles.values()))

    def _is_digital(self, name: str) -> bool:
        layer = self.network.tensors[name].layer
        return any(fnmatchcase(layer, glob) for glob in self.settings.digital)


def check_globs(globs: Sequence[str], layers: Sequence[str]) -> None:
    """Raises HwsimError for a glob that matches no layer."""
    for glob in globs:
        if not any(fnmatchcase(layer, glob) for layer in layers):
            raise HwsimError(f"digital: '{glob}' must match a layer, got none{nearest(glob, layers)}")
