"""Sums of products by their letters."""

from __future__ import annotations

import string
from math import prod

from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held
from hwsim.extract.torch.pointwise import reduced
from hwsim.extract.torch.products import matmul


def einsum(draft: Draft, call: Call) -> Entry:
    """One operand as a view or a sum, two as a batched product. Raises HwsimError for more and for diagonals."""
    operands = [draft.entry(ref) for ref in call.refs]
    terms, result = _letters(call, call["equation"], [one.shape for one in operands])
    if any(len(set(term)) != len(term) for term in terms) or len(operands) > 2:
        raise call.refuse(f"must have one or two operands without diagonals, got '{call['equation']}'")
    if len(operands) == 1:
        x = draft.lifted(operands[0], call)
        if set(terms[0]) == set(result):
            return draft.view(call, [x], call.meta)
        return reduced(draft, call, x, call.meta, call.name)
    return _product(draft, call, operands, terms, result)


def _letters(call: Call, equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, `...` spelled in free capitals."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = max((len(shape) - len(term) + 3 for term, shape in zip(terms, shapes, strict=True) if "..." in term),
                 default=0)  # fmt: skip
    free = [letter for letter in string.ascii_uppercase if letter not in equation][:hidden]
    if not arrow:
        once = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    spelled = []
    for term, shape in zip(terms, shapes, strict=True):
        here = len(shape) - len(term) + 3
        spelled.append(term.replace("...", "".join(free[hidden - here :])) if "..." in term else term)
    return spelled, result.replace("...", "".join(free))


def _product(draft: Draft, call: Call, operands: list[Entry], terms: list[str], result: str) -> Entry:
    sizes = {letter: size for term, one in zip(terms, operands, strict=True)
             for letter, size in zip(term, one.shape, strict=True)}  # fmt: skip
    for at, (term, one) in enumerate(zip(terms, operands, strict=True)):
        alone = [letter for letter in term if letter not in terms[1 - at] and letter not in result]
        if alone:
            kept = "".join(letter for letter in term if letter not in alone)
            meta = Meta(tuple(sizes[letter] for letter in kept), one.dtype)
            operands[at] = reduced(draft, call, draft.lifted(one, call), meta, f"{call.name}.sum{at}")
            terms[at] = kept
    if isinstance(operands[0], Held):
        operands, terms = operands[::-1], terms[::-1]
    first, second = terms
    batch = "".join(letter for letter in result if letter in first and letter in second)
    inner = "".join(letter for letter in first if letter in second and letter not in result)
    if not inner:
        return draft.pointwise(call, "multiply", operands, call.meta)
    rows = "".join(letter for letter in first if letter not in second)
    columns = "".join(letter for letter in second if letter not in first)
    a = arranged(draft, call, operands[0], first, (batch, rows, inner), sizes, f"{call.name}.left")
    b = arranged(draft, call, operands[1], second, (batch, inner, columns), sizes, f"{call.name}.right")
    groups = [prod(sizes[letter] for letter in group) for group in (batch, rows, columns)]
    lead = groups[:1] if batch else []
    out = matmul(draft, call, a, b, Meta((*lead, *groups[1:]), call.meta.dtype), f"{call.name}.product")
    return draft.view(call, [out], call.meta)


def arranged(draft: Draft, call: Call, operand: Entry, term: str, groups: tuple[str, str, str],
             sizes: dict[str, int], name: str) -> Entry:  # fmt: skip
    """An operand with its letters in the order of three groups, each one axis; the first is left out if empty."""
    order = [term.index(letter) for letter in "".join(groups)]
    shape = tuple(prod(sizes[letter] for letter in group) for at, group in enumerate(groups) if group or at)
    if isinstance(operand, Held):
        return operand.moved(lambda x: x.permute(order).reshape(shape), Meta(shape, operand.dtype))
    if isinstance(operand, Constant):
        return Constant(operand.tensor.permute(order).reshape(shape), operand.name)
    assert isinstance(operand, Computed)
    same = operand.shape == shape and order == sorted(order)
    return operand if same else draft.view(call, [operand], Meta(shape, operand.dtype), name)


HANDLERS = {"einsum": einsum}
