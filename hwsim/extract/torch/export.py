"""A module through `torch.export`, and what is said when it does not go."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from hwsim.errors import HwsimError
from hwsim.extract.torch.calls import is_users
from hwsim.extract.torch.opaque import Opaque, opaque_modules

ADVICE = "torch.export needs fixed lengths, no packed sequences and no Python decisions on values of tensors"
NOISY = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
"""Loggers that print what is said in one line here."""


def exported(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> tuple[Any, list[Opaque]]:
    """The program of a module, undecomposed, and what its opaque operators stand for.

    Raises HwsimError with the line of the module at which it stopped.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with opaque_modules(module) as known, warnings.catch_warnings(), _quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return torch.export.export(module, *_apart(inputs, kwargs), strict=False), known
        except HwsimError:
            raise
        except Exception as error:  # whatever the module or the exporter raises
            if _has_packed(error):
                raise HwsimError(f"{name}: must read a padded tensor, got a packed sequence{_place(error)}: "
                                 "call the module without pack_padded_sequence, at one length") from error  # fmt: skip
            raise HwsimError(f"{name}: the module must export, got {_reason(error)}: {ADVICE}") from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NOISY}
    try:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with redirect_stderr(StringIO()):  # the exporter prints its graph beside some errors
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _apart(inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The example inputs, a tensor that is given twice as two: the exporter would take both for the last."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or id(leaf) not in seen:
            seen.add(id(leaf))
            return leaf
        return leaf.clone()

    found: tuple[Any, Any] = tree_map(own, (inputs, kwargs))
    return found


def _reason(error: Exception) -> str:
    """The first sentence of an error, and where in the user's code it was raised."""
    root = _root(error)
    lines = [line.strip() for line in str(root).splitlines() if line.strip()] or [type(root).__name__]
    text = re.sub(r"\s+", " ", lines[0])[:200].rstrip(". :")
    return f"{type(root).__name__}{_place(error)} ({text})"


def _root(error: Exception) -> BaseException:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return root


def _place(error: Exception) -> str:
    """The innermost line of the user's, or else of PyTorch's modules."""
    every = traceback.extract_tb(_root(error).__traceback__)
    modules = [each for each in every if Path(each.filename).parent.name == "modules"]
    frames = [each for each in every if is_users(each.filename)] or modules
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _has_packed(error: Exception) -> bool:
    """Whether a module was at a packed sequence when it stopped."""
    frames = traceback.walk_tb(_root(error).__traceback__)
    return any(isinstance(value, PackedSequence) for frame, _ in frames for value in frame.f_locals.values())
