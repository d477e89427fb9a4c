"""An ONNX file in onnxruntime with its optimisations off, every value that a tensor of the trace shows exposed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import Semantics, profile
from hwsim.extract.onnx import ImportedNetwork, read_onnx, with_all_outputs
from hwsim.numerics.tables import Exact
from hwsim.validate.oracles.base import Array, Computed, Oracle, readable, with_rules
from hwsim.validate.oracles.onnxruntime_products import import_runtime, session
from hwsim.validate.report import Source, Tier


class OnnxFile(Oracle):
    """The file itself as the reference: T0 when it has QLinear operators, T2 when it computes reals between grids."""

    name = "onnxruntime"

    def __init__(self, path: Path, network: ImportedNetwork, semantics: Semantics | None = None) -> None:
        self.path, self.network, self.profile = path, network, semantics
        self.tier: Tier = "T0" if network.profile == "onnx" else "T2"
        self.version = str(import_runtime().__version__)

    def executable(self, given: Executable) -> Executable:
        """The network by the rules of another profile, if one was asked for."""
        return given if self.profile is None else with_rules(given, self.profile)

    def compute(self, executable: Executable, inputs: Mapping[str, Array]) -> Computed:
        """Every tensor that a value of the file shows."""
        shown = dict.fromkeys(self.network.outputs.values())
        try:
            found = session(with_all_outputs(self.path, shown)).run(list(shown), self.network.feeds(inputs))
        except HwsimError:
            raise
        except Exception as error:  # onnxruntime raises a type of its own for each status
            raise HwsimError(f"{self.path}: must run in onnxruntime, got {str(error).splitlines()[0]}") from None
        readings = self.network.readings(dict(zip(shown, found, strict=True)))
        codes = {name: readings[name] for name in executable.outputs if name in readings}
        absent = {
            name: "no value of the file shows it"
            for name in executable.outputs
            if name not in codes and name not in executable.cells
        }
        text = f"onnxruntime {self.version}, optimisation off: {self.path} as it stands"
        source = Source(self.name, self.version, executable.semantics.name, text, (), {}, absent)
        steps = readable(executable).unrounded(inputs, codes)
        return Computed(codes, source, steps, tuple(codes))


def read_onnx_model(
    path: Path, bind: Mapping[str, int], semantics: Semantics | None = None
) -> tuple[Executable, Mapping[str, Array], tuple[str, ...], OnnxFile]:
    """An ONNX file as an executable by its own profile, its parameters, what was assumed, and its reference."""
    network = read_onnx(path, bind)
    rules = LstmRules(Exact("sigmoid"), Exact("tanh"), network.gate_order)
    executable = Executable(
        network.trace, network.codes, network.quantizers, rules=rules, semantics=profile(network.profile)
    )
    return executable, network.codes, network.notes, OnnxFile(path, network, semantics)
