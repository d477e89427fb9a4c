"""What may be validated: an executable file, a catalogue network with weights, an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim import catalogue
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.execute.store import load_executable
from hwsim.extract import load_network
from hwsim.extract.graph.store import is_model
from hwsim.numerics.policy import load_policy
from hwsim.validate.catalogue import catalogue_executable
from hwsim.validate.extracted import load_component
from hwsim.validate.files import Array, Arrays, check_array, check_inputs, read_inputs, read_npz
from hwsim.validate.quantize import FEATURES
from hwsim.validate.weights import read_weights

if TYPE_CHECKING:
    from hwsim.validate.oracles import Oracle

ONNX = ".onnx"
YAML = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network ready to run, its inputs, its parameters before they were packed, and what was assumed to make it.

    `oracle`: the reference that comes with it, an ONNX file in onnxruntime; None for the others.
    """

    executable: Executable
    inputs: Arrays
    codes: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    oracle: Oracle | None = None

    def oracle_of(self, name: str | None) -> Oracle | None:
        """The file's own reference, when nothing else or onnxruntime is asked for."""
        return self.oracle if name in (None, "onnxruntime") else None


def read_model(
    model: str, inputs: Path, *, weights: Path | None = None, precision: str | None = None, bind: Sequence[str] = (),
    semantics: Semantics | None = None, component: str | None = None,
) -> Model:  # fmt: skip
    """The network `model` with the inputs of an npz file.

    `model`: a file of `save_executable`, or of `hwsim extract` with the `component` that is meant; an ONNX file
    (`.onnx`), with `bind` NAME=SIZE for each size that it leaves open; or a network of the catalogue, or its YAML file,
    with float `weights` in safetensors and a `precision` policy. `semantics`: the rules by which the oracle of an ONNX
    file runs the executable, by default the file's.
    Raises HwsimError for files and options that do not fit.
    """
    path = Path(model)
    named = path.suffix in YAML or (not path.is_file() and model in catalogue.names("workloads"))
    if weights is not None or precision is not None or named:
        return _catalogue_model(model, inputs, weights, precision, bind)
    if path.suffix == ONNX:
        return _onnx_model(path, inputs, bind, semantics)
    if bind:
        raise HwsimError(f"--bind must go with an ONNX file, got {model}")
    # Read again without packing, so that a reference does not take its weights out of what it is to judge.
    unpacked = replace(TRAINING, name="readable")
    if is_model(path):
        executable, plain = load_component(path, component), load_component(path, component, unpacked)
    elif component is not None:
        raise HwsimError(f"--component must go with a model of hwsim extract, got {model}")
    else:
        executable, plain = load_executable(path), load_executable(path, unpacked)
    return Model(executable, read_inputs(executable, inputs), plain.parameters())


def _catalogue_model(
    model: str, inputs: Path, weights: Path | None, precision: str | None, bind: Sequence[str]
) -> Model:
    if Path(model).is_file() and Path(model).suffix not in YAML:
        option = "--precision" if weights is None else "--weights"
        raise HwsimError(f"{option} must go with a network of the catalogue, got the file {model}")
    if bind:
        raise HwsimError(f"--bind must go with an ONNX file, got {model}")
    workload = load_network(model)
    if weights is None:
        raise HwsimError(f"{workload.name} must be given its weights, a safetensors file: --weights FILE")
    if precision is None:
        raise HwsimError(f"{workload.name} must be given a precision policy, such as int4: --precision P")
    policy, found, arrays = load_policy(precision), read_weights(weights), read_npz(inputs)
    for name, array in arrays.items():
        check_array(inputs, name, array, None)
    if not arrays:
        raise HwsimError(f"{inputs}: must hold an input of {workload.name}, such as {FEATURES}, got no array")
    executable, codes, notes = catalogue_executable(workload, policy, found, arrays, weights)
    check_inputs(executable, arrays, inputs)
    return Model(executable, arrays, codes, (f"weights of {weights} in the precision {policy.name}", *notes))


def _onnx_model(path: Path, inputs: Path, bind: Sequence[str], semantics: Semantics | None) -> Model:
    from hwsim.validate.oracles.onnx_file import read_onnx_model

    executable, codes, notes, oracle = read_onnx_model(path, bindings(bind), semantics)
    return Model(executable, read_inputs(executable, inputs), codes, notes, oracle)


def bindings(texts: Sequence[str]) -> dict[str, int]:
    """`--bind NAME=SIZE`, given any number of times. Raises HwsimError for another form."""
    found: dict[str, int] = {}
    for text in texts:
        name, equals, size = (part.strip() for part in text.partition("="))
        if not (name and equals and size.isascii() and size.isdecimal() and int(size) > 0):
            raise HwsimError(f"--bind must be NAME=SIZE with a size of 1 or more, got '{text}'")
        if name in found:
            raise HwsimError(f"--bind {name} must be given once, got {found[name]} and {size}")
        found[name] = int(size)
    return found
