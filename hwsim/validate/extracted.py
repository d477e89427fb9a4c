"""Executables inside an extracted model: the quantized files that the integer executor can run too."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import Semantics
from hwsim.execute.store import load_executable, save_executable
from hwsim.extract import ExtractedModel
from hwsim.extract.graph.nodes import Graph
from hwsim.extract.graph.store import extra_member

_FLOAT = "fp"


def executable_parts(
    model: ExtractedModel, paths: Mapping[str, Path], bind: Mapping[str, int]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Executables by member name, for `save_model`, and what is said of each component's execution.

    A float file is timed only; so is a quantized one that the exact reader refuses, and its reason is said.
    """
    from hwsim.validate.oracles.onnx_file import read_onnx_model

    members, said = {}, {}
    for component, path in paths.items():
        if not is_quantized(model.graphs[component]):
            said[component] = "timed only: it is a float network"
            continue
        try:
            executable = read_onnx_model(path, bind)[0]
        except HwsimError as error:
            said[component] = f"timed only: {error}"
            continue
        members[_member(component)] = _content(executable)
        said[component] = f"executed too, by hwsim validate, in the profile {executable.semantics.name}"
    return members, said


def load_component(path: str | Path, component: str | None, semantics: Semantics | None = None) -> Executable:
    """The executable of a component, the only one unless told. Raises HwsimError when it is not there."""
    from hwsim.extract.graph.model import COMPONENTS

    held = {name: content for name in COMPONENTS if (content := extra_member(path, _member(name))) is not None}
    if not held:
        raise HwsimError(f"{path}: must hold a network that can be executed, got one that is timed only: "
                         "hwsim extract says why")  # fmt: skip
    if component is None and len(held) > 1:
        raise HwsimError(f"{path}: --component must be given, one of {', '.join(held)}")
    name = component or next(iter(held))
    if name not in held:
        raise HwsimError(f"{path}: --component must be {' or '.join(held)}, got {name}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(held[name])
        return load_executable(file, semantics)


def is_quantized(graph: Graph) -> bool:
    """Whether any weight of a network is stored in integers or a codebook."""
    return any(not weight.format.startswith((_FLOAT, "bf")) for weight in graph.weights.values())


def _member(component: str) -> str:
    return f"executables/{component}.hwsim"


def _content(executable: Executable) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "executable"
        save_executable(executable, file)
        return file.read_bytes()
