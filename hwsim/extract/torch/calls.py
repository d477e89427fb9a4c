"""An exported program as a plain list of calls, with the regions of `no_grad` and autocast entered."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map

from hwsim.errors import HwsimError

REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "tag_activation_checkpoint")
"""Operators of a higher order that compute what their one graph computes."""
LIBRARY = Path(torch.__file__).resolve().parent
CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range",
          "sym_constrain_range_for_size", "_check")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of another call, or an input, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Meta:
    """Shape and type of a tensor; tensors of one `storage` are views of each other."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int = 0

    @property
    def width(self) -> int:
        """Size of the last axis."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operator. `kind`: its name without library, overload and the underscore of a change in place.

    `arguments`: by their names in the operator's schema, defaults too, with `Ref` where something is computed.
    `outputs`: None for what is no tensor; `single`: whether there is one instead of a tuple. `path`: of the module.
    """

    op: str
    kind: str
    name: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]
    outputs: tuple[Meta | None, ...]
    single: bool = True
    in_place: bool = False
    path: str = ""
    where: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def meta(self) -> Meta:
        """Of the one output. Raises HwsimError for what is no tensor."""
        if self.outputs[0] is None:
            raise self.refuse("must give a tensor, got a number that depends on values")
        return self.outputs[0]

    @property
    def refs(self) -> list[Ref]:
        """What the call reads, in the order of its arguments."""
        return [*references((self.args, dict(self.kwargs)))]

    def __str__(self) -> str:
        place = f" of '{self.path}'" if self.path else ""
        return f"{self.op}{place}" + (f" ({self.where})" if self.where else "")

    def refuse(self, rule: str) -> HwsimError:
        """The error of a call that is not read; `rule` ends the sentence."""
        return HwsimError(f"{self} {rule}")


def references(value: Any) -> Iterator[Ref]:
    """Every `Ref` in nested arguments."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def substitute(value: Any, change: Callable[[Ref], Any]) -> Any:
    """Nested arguments with something else in place of every `Ref`."""
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Ref) else leaf, value)


def read_calls(module: fx.GraphModule) -> tuple[list[Call], Any]:
    """The calls of a graph in order, and its result with `Ref` in place of nodes. Inputs are known by their names."""
    calls: list[Call] = []
    return calls, _flatten(module, "", {}, calls)


def tensor_meta(value: Any, what: str) -> Meta | None:
    """Shape and type of an example value, None for what is no tensor. Raises HwsimError for a size that is open."""
    if not isinstance(value, torch.Tensor):
        return None
    sizes = tuple(value.shape)
    if not all(isinstance(size, int) for size in sizes):
        raise HwsimError(f"{what} must have a size that does not depend on values, got ({', '.join(map(str, sizes))})")
    return Meta(tuple(int(size) for size in sizes), value.dtype, _storage(value))


def _storage(value: torch.Tensor) -> int:
    try:
        return int(value.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(value)


def _flatten(module: fx.GraphModule, prefix: str, known: dict[fx.Node, Any], calls: list[Call]) -> Any:
    for node in module.graph.nodes:
        if node.op == "placeholder":
            known.setdefault(node, Ref(prefix + node.name))
        elif node.op == "get_attr":
            known[node] = _attribute(module, str(node.target))
        elif node.op == "output":
            return _plain(node.args[0], known)
        elif _is_region(node):
            known[node] = _enter(node, prefix, known, calls)
        elif node.target is operator.getitem and not isinstance(known[node.args[0]], Ref):
            known[node] = known[node.args[0]][node.args[1]]
        elif getattr(node.target, "__name__", "").split(".")[0] not in CHECKS:
            known[node] = Ref(prefix + node.name)
            calls.append(_call(node, prefix, known))
    raise HwsimError("an exported graph must have an output, got none")


def _enter(node: fx.Node, prefix: str, known: dict[fx.Node, Any], calls: list[Call]) -> Any:
    given = [_plain(argument, known) for argument in node.args]
    at = next(at for at, argument in enumerate(given) if isinstance(argument, fx.GraphModule))
    inner: fx.GraphModule = given[at]
    inputs = [each for each in inner.graph.nodes if each.op == "placeholder"]
    return _flatten(inner, f"{prefix}{node.name}.", dict(zip(inputs, given[at + 1 :], strict=True)), calls)


def _is_region(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") in REGIONS


def _attribute(module: Any, target: str) -> Any:
    for part in target.split("."):
        module = getattr(module, part)
    return module


def _plain(value: Any, known: Mapping[fx.Node, Any]) -> Any:
    return fx.node.map_arg(value, lambda node: known[node])


def _call(node: fx.Node, prefix: str, known: Mapping[fx.Node, Any]) -> Call:
    args, kwargs = tuple(_plain(node.args, known)), dict(_plain(node.kwargs, known))
    schema = getattr(node.target, "_schema", None)
    kind = getattr(node.target, "__name__", str(node.target)) if schema is None else schema.name.split("::")[-1]
    mutable = schema is not None and schema.is_mutable
    arguments = dict(kwargs)
    if schema is not None:
        names = [argument.name for argument in schema.arguments]
        arguments = {argument.name: argument.default_value for argument in schema.arguments
                     if argument.has_default_value()} | dict(zip(names, args, strict=False)) | kwargs  # fmt: skip
    name = prefix + node.name
    value = node.meta.get("val")
    single = not isinstance(value, list | tuple)
    values: list[Any] = [value] if single else list(value or ())
    return Call(
        str(node.target) if schema is not None else kind, kind.rstrip("_") if mutable else kind, name, node.target,
        args, kwargs, arguments, tuple(tensor_meta(each, f"'{name}'") for each in values), single, mutable,
        _path(node), _where(node),
    )  # fmt: skip


def _path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return re.sub(r"@\d+", "", path.removeprefix("L['self']").removeprefix("L__self__").lstrip("."))


def _where(node: fx.Node) -> str:
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [f"{Path(file).name}:{line}" for file, line in lines if is_users(file)]
    return own[-1] if own else ""


def is_users(file: str) -> bool:
    """Whether a source file is neither of PyTorch, nor of Python, nor of this room."""
    path = Path(file)
    own = (LIBRARY, Path(re.__file__).resolve().parent.parent / "contextlib.py")
    return path.is_file() and path.parent != Path(__file__).parent and not any(map(path.resolve().is_relative_to, own))
