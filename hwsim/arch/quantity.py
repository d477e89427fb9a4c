"""A number of the hardware, together with where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import CoreSchema

from hwsim.config import Frozen

ORIGIN_KEYS = ("source", "assumption")


def is_number(value: Any) -> bool:
    """True for an int or a float; a YAML `true` is not a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_number(value: Any) -> Any:
    if not is_number(value):
        raise ValueError("must be a number")
    return value


_CheckNumber = BeforeValidator(_require_number)


class Quantity(Frozen):
    """A physical number and its origin: exactly one of `source` and `assumption`.

    The unit is the ending of the field that holds it (`clock_hz`, `energy_pj_per_mac`); a field without such
    an ending holds a count. In a file, a bare number takes the origin of the nearest block around it.
    """

    value: Annotated[float, _CheckNumber]
    """The number, in the unit that ends the name of the field."""
    source: str | None = None
    """Where it is published: paper and table, or what it is derived from."""
    assumption: str | None = None
    """Why this number was chosen, when nothing is published."""

    @model_validator(mode="before")
    @classmethod
    def _is_quantity(cls, data: Any) -> Any:
        if not isinstance(data, Mapping | Quantity):
            raise ValueError("must be a number with a source or an assumption")
        return data

    @model_validator(mode="after")
    def _has_one_origin(self) -> Quantity:
        if bool(self.source) == bool(self.assumption):
            raise ValueError("must be given with exactly one of source and assumption")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """What a file may hold: the whole mapping, or a bare number inside a block with an origin."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        whole = dict(schema)
        whole["oneOf"] = [{"required": [key]} for key in ORIGIN_KEYS]
        schema.clear()
        schema["description"] = whole.pop("description", "")
        schema["anyOf"] = [dict(whole["properties"]["value"]), whole]
        return reference


class PositiveQuantity(Quantity):
    """A quantity greater than zero."""

    value: Annotated[PositiveFloat, _CheckNumber]
    """The number, greater than 0, in the unit that ends the name of the field."""


class NonNegativeQuantity(Quantity):
    """A quantity of zero or more."""

    value: Annotated[float, Field(ge=0), _CheckNumber]
    """The number, at least 0, in the unit that ends the name of the field."""


class FractionQuantity(Quantity):
    """A part of a whole: greater than 0, at most 1."""

    value: Annotated[float, Field(gt=0, le=1), _CheckNumber]
    """The fraction, in (0, 1]."""


class CountQuantity(Quantity):
    """An integer greater than zero."""

    value: Annotated[PositiveInt, _CheckNumber]
    """The integer, at least 1, in the unit that ends the name of the field."""


class NonNegativeCountQuantity(Quantity):
    """An integer of zero or more."""

    value: Annotated[int, Field(ge=0), _CheckNumber]
    """The integer, at least 0, in the unit that ends the name of the field."""


class Origin(NamedTuple):
    """Where one number of an architecture comes from."""

    path: str
    """Dotted path of the number, as `--set` takes it."""
    value: float
    """The number, in the unit that ends the path."""
    text: str
    """The source, or the reason of the assumption."""


def spell_out(node: Any, origin: Mapping[str, Any] | None = None) -> Any:
    """Give every bare number the `source` or `assumption` of the nearest block around it.

    Returns new data in which a block's origin stands in its numbers and no longer in the block. A number with
    no origin above it stays bare, and the schema then refuses it.
    """
    if is_number(node) and origin:
        return {"value": node, **origin}
    if not isinstance(node, Mapping) or "value" in node:
        return node
    own = {key: node[key] for key in ORIGIN_KEYS if key in node}
    return {key: spell_out(value, own or origin) for key, value in node.items() if key not in own}


def quantities(node: Any, path: str = "") -> Iterator[tuple[str, Quantity]]:
    """Every quantity below `node` with its dotted path, in the order of the schema."""
    if isinstance(node, Quantity):
        yield path, node
        return
    if isinstance(node, BaseModel):
        children = [(name, getattr(node, name)) for name in type(node).model_fields]
    else:
        children = list(node.items()) if isinstance(node, Mapping) else []
    for name, child in children:
        yield from quantities(child, f"{path}.{name}" if path else name)
