"""An encoder of unidirectional LSTM layers frame by frame: each layer does its step as soon as the one below has.

Layer after layer over the whole utterance (`emit_lstm_encoder`) suits a machine that loads weights once a layer. Where
every layer has units of its own, such as analog tiles, frame by frame lets the layers work at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.extract.interface import AnyWorkload
from hwsim.extract.lstm import LstmLayer
from hwsim.extract.workload import Workload
from hwsim.trace import Role, TraceBuilder


def frame_encoder(workload: AnyWorkload) -> EncoderSpec | None:
    """The encoder of a workload that can be emitted frame by frame: LSTM layers that read no later frame."""
    if not isinstance(workload, Workload) or not workload.transduces or workload.passes != ("",):
        return None
    encoder = workload.spec.encoder
    return encoder if isinstance(encoder, EncoderSpec) and not encoder.bidirectional else None


@dataclass(frozen=True, slots=True)
class FrameEncoder:
    """Tensors of an encoder that gives one frame (1, cells) in each iteration of a loop."""

    spec: EncoderSpec
    frames: int
    """Input frames."""
    features: int
    layers: tuple[LstmLayer, ...]

    @classmethod
    def declare(cls, b: TraceBuilder, spec: EncoderSpec, frames: int, name: str = "encoder") -> FrameEncoder:
        """Declare layers over `frames` input frames; the names of tensors are those of `emit_lstm_encoder`."""
        features = b.tensor(f"{name}.input.features", Role.ACTIVATION, (frames, spec.input), f"{name}.layer0")
        width, layers = spec.input, []
        for index in range(spec.layers):
            if index == spec.stack_before_layer:
                width *= spec.stack_factor
            rows = spec.reduction if index + 1 == spec.stack_before_layer else 1
            layers.append(LstmLayer.declare(b, f"{name}.layer{index}", width, spec.cells, rows))
            width = spec.cells
        return cls(spec, frames, features, tuple(layers))

    @property
    def iterations(self) -> int:
        """Frames that it gives."""
        return -(-self.frames // self.spec.reduction)

    @property
    def out(self) -> list[int]:
        """The tensor of its last layer."""
        return [self.layers[-1].h]

    def step(self, b: TraceBuilder) -> None:
        """Add one output frame inside a loop of `iterations`: lower layers do a step for each frame that is stacked."""
        below = self.spec.stack_before_layer or 0
        for part in range(self.spec.reduction if below else 0):
            there = np.arange(self.iterations) * self.spec.reduction + part < self.frames
            self._layers(b, 0, below, there.astype(np.int64))
        self._layers(b, below, self.spec.layers, np.ones(self.iterations, dtype=np.int64))

    def _layers(self, b: TraceBuilder, first: int, end: int, rows: np.ndarray) -> None:
        for index in range(first, end):
            x = self.layers[index - 1].h if index else self.features
            self.layers[index].project_input(b, [x], rows)
            self.layers[index].step(b, rows)
