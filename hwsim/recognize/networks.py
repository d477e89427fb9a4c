"""Executables as the networks that a beam search asks: rows of hypotheses in, reals out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.decode.prefixes import Array, Nodes, States
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.numerics.rounding import Reals

ENCODER_SIDE, PREDICTION_SIDE = "joint.encoder_projection.out", "joint.prediction_projection.out"
FEATURES, LOGITS = "encoder.input.features", "joint.output.logits"


class StepNetwork:
    """One step of a prediction network or a language model: labels (R,) and states (R, H) to outputs and new states.

    What it reads and writes under one name is a state; what it only reads are the labels. `output` is the tensor that
    the search asks for. Raises HwsimError for an executable that has no such step.
    """

    def __init__(self, executable: Executable, output: str) -> None:
        self.executable, self.output = executable, output
        self.states = tuple(name for name in executable.inputs if name in executable.outputs)
        labels = [name for name in executable.inputs if name not in self.states]
        if len(labels) != 1 or executable.rows is None or output not in executable.outputs:
            raise HwsimError(f"{executable.trace.name}: must be one step that reads labels and states and writes "
                             f"{output}")  # fmt: skip
        self.labels = labels[0]
        self._most = executable.rows

    def start(self) -> States:
        """Zero states, (1, H) each."""
        tensors = self.executable.network.tensors
        return tuple(np.zeros((1, tensors[name].shape[-1])) for name in self.states)

    def step(self, labels: Nodes, states: States) -> tuple[Array, States]:
        """Outputs (R, N) and states (R, H) after one label each, of any number of rows."""
        parts = [
            self.executable.run({self.labels: labels[at : at + self._most], **self._states(states, at)})
            for at in range(0, len(labels), self._most)
        ]
        outputs = [_joined(parts, name) for name in (self.output, *self.states)]
        return outputs[0], tuple(outputs[1:])

    def _states(self, states: States, at: int) -> dict[str, Array]:
        return {name: state[at : at + self._most] for name, state in zip(self.states, states, strict=True)}


class JointNetwork:
    """A transducer's networks after the encoder: prediction step and joint step."""

    def __init__(self, prediction: Executable, joint: Executable) -> None:
        self.prediction = StepNetwork(prediction, PREDICTION_SIDE)
        if set(joint.inputs) != {ENCODER_SIDE, PREDICTION_SIDE} or LOGITS not in joint.outputs or joint.rows is None:
            sides = f"{ENCODER_SIDE} and {PREDICTION_SIDE}"
            raise HwsimError(f"{joint.trace.name}: must be one step that reads {sides} and writes {LOGITS}")
        self._joint, self._most = joint, joint.rows

    def joint(self, frames: Array, predicted: Array) -> Reals:
        """Log probabilities (R, V + 1) of rows of both projections (R, J)."""
        parts = []
        for at in range(0, len(frames), self._most):
            rows = slice(at, at + self._most)
            parts.append(self._joint.run({ENCODER_SIDE: frames[rows], PREDICTION_SIDE: predicted[rows]}))
        return _joined(parts, LOGITS)


class EncoderStream:
    """An encoder that is fed features in pieces of any length and gives the rows that the joint reads.

    Layers may stack `stack` frames, and attention see chunks of the stacked ones: what fills no chunk waits for the
    next piece, or for the end. States of LSTMs, keys and values of attention and inputs of convolutions are kept
    between pieces, so that rows are those of the whole. All waits for the end when the encoder sees later frames.
    """

    def __init__(self, encoder: Executable, stack: int) -> None:
        if encoder.rows is None or FEATURES not in encoder.inputs or ENCODER_SIDE not in encoder.outputs:
            raise HwsimError(f"{encoder.trace.name}: must read {FEATURES} of any number of frames and write "
                             f"{ENCODER_SIDE}")  # fmt: skip
        self._encoder, self._unit, self._longest = encoder, stack * encoder.chunk, encoder.rows
        # Sums in floating point depend on how many frames run at once: one chunk always, whatever is fed.
        self._most = max(encoder.rows // self._unit, 1) * self._unit if encoder.exact else self._unit
        self._states: Mapping[str, Array] = {}
        self._waiting: Array = np.zeros((0, encoder.network.tensors[FEATURES].shape[-1]))

    @property
    def nothing(self) -> Array:
        """Features of no frame."""
        return self._waiting[:0]

    def feed(self, features: Array, last: bool = False) -> Array:
        """Rows (T', J) that are complete after more features (T, K)."""
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self._waiting.shape[1]:
            raise HwsimError(f"features must be of shape (T, {self._waiting.shape[1]}), got {features.shape}")
        waiting = np.concatenate([self._waiting, features])
        if not self._encoder.streams:
            return self._at_the_end(waiting, last)
        ready = len(waiting) if last else len(waiting) // self._unit * self._unit
        self._waiting = waiting[ready:]
        rows = [self._run(waiting[at : min(at + self._most, ready)]) for at in range(0, ready, self._most)]
        return np.concatenate(rows) if rows else self._no_rows

    def _at_the_end(self, waiting: Array, last: bool) -> Array:
        """All rows of an encoder that sees later frames, once there are none. Raises HwsimError for too many."""
        if len(waiting) > self._longest:
            raise HwsimError(f"an utterance of an encoder that sees all of it must have at most {self._longest} "
                             f"frames, got {len(waiting)}")  # fmt: skip
        self._waiting = waiting[:0] if last else waiting
        return self._encoder.run({FEATURES: waiting})[ENCODER_SIDE] if last and len(waiting) else self._no_rows

    @property
    def _no_rows(self) -> Array:
        return np.zeros((0, self._encoder.network.tensors[ENCODER_SIDE].shape[-1]))

    def _run(self, features: Array) -> Array:
        out = self._encoder.run({FEATURES: features}, states=self._states)
        self._states = self._encoder.states_after(out, self._states)
        return out[ENCODER_SIDE]


def _joined(parts: list[dict[str, Any]], name: str) -> Array:
    return parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])
