"""The walk over the calls of a program: constants are folded, parameters followed, the rest becomes nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.extract.torch import (
    attention,
    convolution,
    einsum,
    lookup,
    movement,
    norms,
    pointwise,
    products,
    quantizers,
    recurrent,
)
from hwsim.extract.torch.aliases import Aliases
from hwsim.extract.torch.calls import Call, Meta, Ref, references, substitute
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held
from hwsim.extract.torch.opaque import Opaque
from hwsim.extract.torch.own import opaque

HANDLERS: Mapping[str, Any] = {
    **movement.HANDLERS, **pointwise.HANDLERS, **products.HANDLERS, **einsum.HANDLERS, **convolution.HANDLERS,
    **norms.HANDLERS, **attention.HANDLERS, **recurrent.HANDLERS, **lookup.HANDLERS, **quantizers.HANDLERS,
}  # fmt: skip
OPERATIONS = {
    **products.HANDLERS, **einsum.HANDLERS, **convolution.HANDLERS, **norms.HANDLERS, **attention.HANDLERS,
    **recurrent.HANDLERS, "embedding": None, "embedding_bag": None,
}  # fmt: skip
"""What runs even of constants, if parameters are in it: encodings of positions, or a table, times a matrix."""
RANDOM = ("rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal",
          "uniform", "multinomial", "exponential", "rrelu", "rrelu_with_noise")  # fmt: skip
SHOWN = 3


class Reader:
    """Reads calls into a draft. `known`: what opaque operators stand for."""

    def __init__(self, draft: Draft, calls: list[Call], known: list[Opaque], title: str) -> None:
        self.draft, self.known, self.title = draft, known, title
        self.calls = calls
        self.aliases = Aliases(draft, calls)
        self._unread: Counter[str] = Counter()
        self._first: dict[str, Call] = {}

    def read(self, result: Any) -> None:
        """All calls that the result needs. Raises HwsimError that lists operators that are not read."""
        for call in self._needed(result):
            try:
                self._read(call)
            except HwsimError:
                raise
            except Exception as error:  # an operator in a form that its handler does not expect
                if not self._unread:
                    raise call.refuse(f"must have a form that is read, got {type(error).__name__}: {error}") from error
                break
        if self._unread:
            total = len(self._unread)
            shown = [f"{op} ({count} node{'s' * (count > 1)}, first {_place(self._first[op])})"
                     for op, count in self._unread.most_common(SHOWN)]  # fmt: skip
            more = f" and {total - SHOWN} more" if total > SHOWN else ""
            raise HwsimError(f"{self.title}: operators must be ones that are read, got {', '.join(shown)}{more}")

    def _needed(self, result: Any) -> list[Call]:
        wanted = {ref.name for ref in references(result)}
        kept = []
        for call in reversed(self.calls):
            if call.name in wanted or (call.in_place and call.outputs[0] is not None):
                wanted.update(ref.name for ref in call.refs)
                kept.append(call)
        return kept[::-1]

    def _read(self, call: Call) -> None:
        entries = self.draft.entries
        if call.kind == "getitem":
            whole = entries[call.args[0].name]
            entries[call.name] = whole[call.args[1]] if isinstance(whole, tuple) else self._at(call, whole)
            return
        self.aliases.refresh(call)
        entries[call.name] = self._made(call)
        if call.in_place:
            self.aliases.written(call)

    def _made(self, call: Call) -> Entry | tuple[Entry, ...]:
        given = [self.draft.entry(ref) for ref in call.refs]
        unread = {ref.name: _blank(self.draft.entry(ref)) for ref in call.refs[call.kind in movement.LIKE :]}
        if call.kind in movement.SHAPE_ONLY or (call.kind in movement.LIKE and isinstance(given[0], Constant)):
            return self._folded(call, unread)
        if call.kind in RANDOM:
            return self._refused(call)
        if call.op.startswith("hwsim."):
            return opaque(self.draft, call, self.known)
        given = given[:1] if call.kind in movement.LIKE else given
        computed = any(isinstance(one, Computed) for one in given)
        held = any(isinstance(one, Held) for one in given)
        if not computed and call.target is not None:
            if not held and call.kind not in quantizers.HANDLERS:
                return self._folded(call, {})
            if held and call.kind not in OPERATIONS and call.kind not in quantizers.HANDLERS:
                return self._of_parameters(call, given)
        handler = HANDLERS.get(call.kind)
        made: Entry | tuple[Entry, ...] = self._refused(call) if handler is None else handler(self.draft, call)
        return made

    def _folded(self, call: Call, blanks: Mapping[str, Tensor]) -> Entry | tuple[Entry, ...]:
        """Computed at once by the operator itself."""
        draft = self.draft

        def tensor(ref: Ref) -> Any:
            if ref.name in blanks:
                return blanks[ref.name]
            entry = draft.entry(ref)
            assert isinstance(entry, Constant)
            return entry.tensor

        with torch.no_grad():
            result = call.target(*substitute(call.args, tensor), **substitute(dict(call.kwargs), tensor))
        draft.counts["operators of constants were folded: {}"] += 1
        names = [one.name for ref in call.refs[:1] if isinstance(one := draft.entry(ref), Constant)]
        texts = [one.format for ref in call.refs[:1] if isinstance(one := draft.entry(ref), Constant)]
        kept = texts[0] if texts and call.kind in (*movement.SAME, *movement.ORDERS) else ""
        title = f"{call.path}.{call.name}".strip(".")
        title = names[0] if names and call.kind in (*movement.SAME, *movement.ORDERS) else title
        if isinstance(result, list | tuple):
            return tuple(Constant(one, f"{title}.{at}", kept) for at, one in enumerate(result))
        return Constant(result if isinstance(result, Tensor) else torch.as_tensor(result), title, kept)

    def _of_parameters(self, call: Call, given: list[Entry]) -> Entry | tuple[Entry, ...]:
        """Follows from parameters alone: moved, or computed when it is loaded."""
        first = given[0]
        selects = call.kind in movement.SELECTIONS
        moves = len(given) == 1 and call.kind in (*movement.SAME, *movement.ORDERS, *movement.SELECTIONS, "expand")
        sources = tuple(dict.fromkeys(name for one in given if isinstance(one, Held) for name in one.sources))

        def base(at: int) -> Tensor:
            return _run(call, at, [one.tensor() if isinstance(one, Held) else one.tensor for one in given
                                   if isinstance(one, Held | Constant)])  # fmt: skip

        made: list[Entry] = []
        for at, meta in enumerate(meta for meta in call.outputs if meta is not None):
            if call.kind in movement.LIKE and isinstance(first, Held):
                made.append(_like(first, meta))
            elif moves and isinstance(first, Held) and (call.kind != "expand" or first.shape == meta.shape):
                made.append(first.moved(partial(_moved, call, at), meta, selects))
            else:
                made.append(Held(sources, partial(base, at), meta.shape, meta.dtype, plain=False))
                if any(one.grid for one in given if isinstance(one, Held)):
                    self.draft.counts["quantized parameters are changed before they are used, as reals: {}"] += 1
        return made[0] if call.single else tuple(made)

    def _refused(self, call: Call) -> Entry | tuple[Entry, ...]:
        """Count an operator that is not read, and go on to find the others."""
        self._unread[call.op] += 1
        self._first.setdefault(call.op, call)
        found = tuple(Computed(f"{call.name}.{at}", meta.shape, meta.dtype, "fp32") if meta else
                      Constant(torch.zeros(()), "") for at, meta in enumerate(call.outputs))  # fmt: skip
        for at, meta in enumerate(call.outputs):
            if meta is not None:
                self.draft.value(f"{call.name}.{at}", meta)
        return found[0] if call.single else found

    def _at(self, call: Call, whole: Entry) -> Entry:
        if isinstance(whole, Computed):
            return self.draft.view(call, [whole], call.meta)
        return replace(whole, tensor=whole.tensor[call.args[1]]) if isinstance(whole, Constant) else whole


def _place(call: Call) -> str:
    place = f"of '{call.path}'" if call.path else "of the module itself"
    return place + (f" at {call.where}" if call.where else "")


def _run(call: Call, at: int, given: list[Tensor]) -> Tensor:
    """One result of a call of tensors."""
    by_name = dict(zip([ref.name for ref in call.refs], given, strict=True))

    def swap(ref: Ref) -> Tensor:
        return by_name[ref.name]

    with torch.no_grad():
        result = call.target(*substitute(call.args, swap), **substitute(dict(call.kwargs), swap))
    found: Tensor = result if call.single else result[at]
    return found


def _like(held: Held, meta: Meta) -> Held:
    """In another shape or type, that of another tensor."""
    if prod(held.shape) == prod(meta.shape):
        return held.moved(lambda x: x.to(meta.dtype).reshape(meta.shape), meta)
    return Held(
        held.sources, lambda: held.tensor().to(meta.dtype).expand(meta.shape), meta.shape, meta.dtype, plain=False
    )


def _moved(call: Call, at: int, x: Tensor) -> Tensor:
    return _run(call, at, [x])


def _blank(entry: Entry) -> Tensor:
    return torch.empty(entry.shape, dtype=entry.dtype)
