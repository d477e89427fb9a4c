"""Modules and functions whose insides do not export, as one operator each while a program is made.

Quantizer modules look at values when they run (PyTorch's observers, our calibrations), and our recurrent modules loop
over time. They are recognized by what they have, not by their types: this room knows none of `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

FUNCTIONS = ("_StraightThrough", "_ByTable", "_IntegerSoftmax")
"""Autograd functions of ours."""
RECURRENT = ("QuantRecurrent", "LstmLayer")
"""Recurrent modules of ours, by the names of their classes."""

CHANGED = ("forward", "evaluate", "quantizer", "step")
"""What modules have of their own while they are opaque."""

Opaque = tuple[str, Any]


@cache
def operators() -> Any:
    """`opaque`, which stands for the entry `index` of a list and gives a tensor of `shape`; `step` of recurrent layers.

    `step` gives what the last layer writes, (rows, `cells`), and the states after, like those before.
    """
    library: Any = torch.library.Library("hwsim", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("opaque(Tensor x, int index, int[] shape) -> Tensor")
    library.define("step(Tensor x, Tensor[] states, int index, int cells) -> Tensor[]")

    def opaque(x: Tensor, index: int, shape: list[int]) -> Tensor:
        return x.new_empty(shape)

    def step(x: Tensor, states: list[Tensor], index: int, cells: int) -> list[Tensor]:
        return [x.new_empty((x.shape[0], cells)), *(state.new_empty(state.shape) for state in states)]

    for name, function in (("opaque", opaque), ("step", step)):
        library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"hwsim::{name}", function, lib=library)
    return torch.ops.hwsim, library


@contextmanager
def opaque_modules(module: nn.Module) -> Iterator[list[Opaque]]:
    """While it lasts, quantizers and recurrent modules of ours are opaque; gives the list that they are entries of."""
    found: list[Opaque] = []
    before: list[tuple[nn.Module, dict[str, Any]]] = [(part, dict(part.__dict__)) for part in module.modules()]

    def put(target: nn.Module, name: str, value: Callable[..., Any]) -> None:
        target.__dict__[name] = value

    apply = torch.autograd.Function.__dict__["apply"]
    try:
        for path, part in module.named_modules():
            _make_opaque(part, path, found, put)
        torch.autograd.Function.apply = classmethod(_applying(apply, found))  # type: ignore[method-assign,assignment]
        yield found
    finally:
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
        for part, attributes in before:
            for name in CHANGED:
                part.__dict__.pop(name, None)
                part.__dict__.update({name: attributes[name]} if name in attributes else {})


def _make_opaque(part: Any, path: str, found: list[Opaque], put: Callable[..., None]) -> None:
    names = {kind.__name__ for kind in type(part).__mro__}
    ours = any(kind.__module__.startswith("hwsim.") for kind in type(part).__mro__)
    if hasattr(part, "fake_quant_enabled") and hasattr(part, "quant_min"):
        put(part, "forward", _call("quantizer", part, found))
    elif ours and names.intersection(RECURRENT):
        put(part, "forward", _recurrent(part, path, found))
        put(part, "step", _step(part, path, found))
        if hasattr(part, "evaluate"):
            put(part, "evaluate", lambda x, *_, **__: part(x))
    elif ours and (callable(getattr(part, "quantizer", None)) or hasattr(part, "codes")):
        put(part, "forward", _call("quantizer", part, found))
        if callable(getattr(part, "quantizer", None)):
            put(part, "quantizer", _known(part.quantizer))
    elif ours and hasattr(part, "evaluate"):
        # A part is evaluated by its parent without a call: through one, operators know the module they are of.
        put(part, "forward", partial(type(part).evaluate, part))
        put(part, "evaluate", lambda *given, **named: part(*given, **named))


def _call(kind: str, payload: Any, found: list[Opaque], width: Callable[[Tensor], int] | None = None) -> Any:
    index = len(found)
    found.append((kind, payload))

    def forward(x: Tensor) -> Tensor:
        shape = list(x.shape) if width is None else [*x.shape[:-1], width(x)]
        result: Tensor = operators()[0].opaque(x, index, shape)
        return result

    return forward


def _recurrent(part: Any, path: str, found: list[Opaque]) -> Any:
    directions = 2 if getattr(part, "bidirectional", False) else 1
    return _call("recurrent", (path, part), found, lambda _: int(part.cells) * directions)


def _step(part: Any, path: str, found: list[Opaque]) -> Any:
    index = len(found)
    found.append(("recurrent", (path, part)))

    def step(x: Tensor, states: Any, *_: Any, **__: Any) -> Any:
        """A stack gives h and the states of each layer, a layer its own."""
        stack = isinstance(states[0], list | tuple)
        flat = [state for layer in states for state in layer] if stack else list(states)
        h, *after = operators()[0].step(x, flat, index, int(part.cells))
        if not stack:
            return tuple(after)
        each = len(states[0])
        return h, [tuple(after[at : at + each]) for at in range(0, len(after), each)]

    return step


def _known(quantizer: Callable[..., Any]) -> Callable[..., Any]:
    """A module's `quantizer`, asked before tensors lose their values; dynamic ones keep to raise."""
    try:
        fixed = quantizer()
    except Exception:  # whatever a calibration without data raises: the weight's own grid is made later
        return quantizer
    return lambda x=None: fixed


def _applying(apply: Any, found: list[Opaque]) -> Callable[..., Any]:
    def applied(cls: Any, *given: Any, **named: Any) -> Any:
        if cls.__name__ not in FUNCTIONS or not cls.__module__.startswith("hwsim."):
            return apply.__get__(None, cls)(*given, **named)
        return _call(cls.__name__, given[1:], found)(given[0])

    return applied
