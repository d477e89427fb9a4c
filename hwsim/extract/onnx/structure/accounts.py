"""Every parameter of a file is a weight, a constant that is written down, or a number of a quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.resolve import Resolved
from hwsim.numerics.rounding import Reals

if TYPE_CHECKING:
    from hwsim.extract.onnx.structure.draft import Draft

SAMPLES = 5
FINE, COARSE = 1e-3, 0.05
"""Error of a sampled sine in floats and in codes of 8 bits, by its largest entry."""
MASKED = -1e4
"""From this value down an entry of a float mask hides what it is added to."""


def is_parameter(resolved: Resolved, constant: Constant) -> bool:
    """Whether a constant operand is learned: it holds all of an initializer that is no mask or encoding of positions.

    What is named weight or bias is learned. One number, or the same number everywhere, is learned if it has a name of
    a module's parts, with dots.
    """
    if not constant.is_real or not constant.sources:
        return False
    stored = [resolved.stored[name] for name in constant.sources if name in resolved.stored]
    if not any(int(np.prod(each.shape)) == constant.elements for each in stored):
        return False
    if is_named(constant):
        return True
    array = constant.reals().astype(np.float64)
    if array.size and array.min() == array.max():
        return any("." in name and "::" not in name and "/" not in name for name in constant.sources)
    noise = COARSE if constant.grid is not None else FINE
    return not (is_encoding(array, noise) or is_mask(array))


def is_named(constant: Constant) -> bool:
    """Whether it is made of what a module calls its weight or bias."""
    return any(name.endswith(("weight", "bias")) for name in constant.sources)


def is_encoding(array: Reals, noise: float = FINE) -> bool:
    """Whether every column is a sampled sine along one axis: x[t + 1] + x[t - 1] = k x[t] with one k.

    `noise`: by how much of the largest entry that may fail. Five samples at least.
    """
    table = array.squeeze()
    for axis in range(table.ndim - 1):
        rows = np.moveaxis(table, axis, 0)
        if len(rows) < SAMPLES or not np.isfinite(rows).all():
            continue
        both, middle = rows[2:] + rows[:-2], rows[1:-1]
        factor = (both * middle).sum(axis=0) / np.maximum((middle**2).sum(axis=0), np.finfo(np.float64).tiny)
        if np.abs(both - factor * middle).max() <= noise * np.abs(rows).max():
            return True
    return False


def is_mask(array: Reals) -> bool:
    """Whether it has nothing but two values, one of which hides."""
    least = array.min() if array.size else np.inf
    return bool(least <= MASKED and ((array == least) | (array == array.max())).all())


def held_parameters(draft: Draft) -> dict[str, int]:
    """Elements by weight: what the file holds, an initializer that several weights share being split among them.

    An initializer that is neither a weight nor written down stands under its own name, which no weight has.
    """
    held = _elements(draft)
    counted = {name for name, weight in draft.weights.items() if weight.counted}
    found: dict[str, int] = {}
    for weights, sources in _groups(draft, counted):
        parts = {name: draft.weights[name].elements for name in weights}
        numbers = not any(source in held for source in sources)
        if numbers or sum(parts.values()) == sum(held.get(source, 0) for source in sources):
            found.update(parts)
        elif weights & draft.computed:
            names, total = ", ".join(sorted(sources)), sum(held.get(source, 0) for source in sources)
            draft.note(f"'{sorted(weights)[0]}': {sum(parts.values())} parameters are computed from {total} ({names})")
            found.update(parts)
        else:
            found.update({source: held[source] for source in sources if source in held})
    claimed = {source for sources in draft.claims.values() for source in sources}
    for name in held:
        if name not in claimed and name not in draft.spent and name in draft.resolved.read:
            found[name] = held[name]
    return found


def _elements(draft: Draft) -> dict[str, int]:
    """Parameters of each initializer that holds reals or codes, more than one."""
    found = {}
    for name, each in draft.resolved.stored.items():
        count = draft.packed.get(name, int(np.prod(each.shape, dtype=np.int64)))
        narrow = each.dtype.itemsize == 1 and each.dtype != np.bool_
        if name in draft.packed or each.dtype.name.startswith(("float", "bfloat")) or narrow:
            found[name] = count
    claimed = {source for sources in draft.claims.values() for source in sources}
    for name in claimed - found.keys():
        if name in draft.resolved.stored:
            found[name] = int(np.prod(draft.resolved.stored[name].shape, dtype=np.int64))
    return {name: count for name, count in found.items() if count > 1 or name in claimed}


def _groups(draft: Draft, counted: set[str]) -> list[tuple[set[str], frozenset[str]]]:
    """Weights that share initializers, with all of these."""
    group_of: dict[str, tuple[set[str], set[str]]] = {}
    for name in draft.weights:
        if name not in counted:
            continue
        weights, sources = {name}, set(draft.claims[name])
        for source in draft.claims[name]:
            if source in group_of:
                weights |= group_of[source][0]
                sources |= group_of[source][1]
        group_of.update(dict.fromkeys(sources, (weights, sources)))
    distinct = {id(group): group for group in group_of.values()}
    return [(weights, frozenset(sources)) for weights, sources in distinct.values()]
