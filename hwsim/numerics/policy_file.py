"""The YAML file of a precision policy: its schema, and how it becomes a `PrecisionPolicy`."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from hwsim.config import Document, Frozen, read_document, validate
from hwsim.errors import ConfigError, HwsimError
from hwsim.numerics.formats import FormatError, NumberFormat
from hwsim.numerics.policy import LayerPrecision, PartialPrecision, PrecisionPolicy, is_dense


def _format(text: str) -> str:
    try:
        NumberFormat.parse(text)
    except FormatError as error:
        raise ValueError(f"must be a number format ({error.reason})") from None
    return text


def _dense(text: str) -> str:
    if not is_dense(NumberFormat.parse(_format(text))):
        raise ValueError("must be a dense int or float format (codebooks and N:M are for weights)")
    return text


FormatText = Annotated[str, AfterValidator(_format)]
DenseText = Annotated[str, AfterValidator(_dense)]


class LayerDefault(Frozen):
    """The formats of every layer that no rule matches."""

    weights: FormatText
    """Format of the weights."""
    activations: DenseText
    """Format of inputs and outputs, and of a recurrent hidden state."""
    state: DenseText
    """Format of what stays inside a layer and meets no weights, such as the LSTM cell."""
    bias: DenseText
    """Format of what is added to the products."""


class LayerRule(Frozen):
    """The formats that a rule sets; what is left out stays as the rules before it say."""

    weights: FormatText | None = None
    """Format of the weights."""
    activations: DenseText | None = None
    """Format of inputs and outputs, and of a recurrent hidden state."""
    state: DenseText | None = None
    """Format of what stays inside a layer and meets no weights, such as the LSTM cell."""
    bias: DenseText | None = None
    """Format of what is added to the products."""
    optional: bool = False
    """Whether the rule may match no layer of a network."""


def _form(value: Any) -> str:
    return "long" if isinstance(value, dict) else "short"


RuleOrFormat = Annotated[Annotated[DenseText, Tag("short")] | Annotated[LayerRule, Tag("long")], Discriminator(_form)]


class PolicyFile(Frozen):
    """A precision policy: number formats by layer."""

    description: str
    """What the policy is, in a sentence."""
    source: str | None = None
    """Where the choice of formats is published."""
    assumption: str | None = None
    """What was chosen here and not published, and why; a source or an assumption must be given."""
    default: LayerDefault
    """The formats of every layer that no rule matches."""
    layers: dict[str, RuleOrFormat] = Field(default_factory=dict)
    """Globs over dotted layer names, later ones override earlier ones; a bare format sets all four fields."""


def json_schema() -> dict[str, Any]:
    """JSON Schema of a policy file, for editors."""
    return PolicyFile.model_json_schema()


def read_policy(path: str | Path) -> PrecisionPolicy:
    """Read a policy file; the policy's name is the file's. Raises ConfigError with file and line."""
    path = Path(path)
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else build_policy(read_document(path))


@lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> PrecisionPolicy:
    return build_policy(read_document(path))


def build_policy(document: Document) -> PrecisionPolicy:
    """Build the policy of a document. Raises ConfigError with file and line."""
    model = validate(PolicyFile, document)
    if not model.source and not model.assumption:
        raise ConfigError(f"{document.file}:1: source or assumption must be given in the file, got neither")
    default = {name: NumberFormat.parse(text) for name, text in model.default.model_dump().items()}
    rules = tuple((glob, _partial(rule)) for glob, rule in model.layers.items())
    return PrecisionPolicy(Path(document.file).stem, rules, LayerPrecision(**default), model.assumption or "")


def policy_text(policy: PrecisionPolicy, description: str, source: str | None = None) -> str:
    """The YAML file of a policy, which `read_policy` reads back: the same rules in the same order.

    Raises HwsimError without a source for a policy that has no assumption, and for a glob that two rules have.
    """
    from ruamel.yaml import YAML

    if not source and not policy.assumption:
        raise HwsimError("source must be given for a policy without an assumption, got neither")
    layers: dict[str, dict[str, Any]] = {}
    for glob, rule in policy.rules:
        if glob in layers:
            raise HwsimError(f"globs of a policy's file must be given once, got {glob} twice")
        layers[glob] = _texts(rule) | ({"optional": True} if rule.optional else {})
    about = {"description": description, "source": source, "assumption": policy.assumption}
    data = {key: text for key, text in about.items() if text} | {"default": _texts(policy.default), "layers": layers}
    yaml, stream = YAML(typ="safe", pure=True), StringIO()
    yaml.width = 120
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel declares no type for it
    yaml.dump(data, stream)
    return stream.getvalue()


def _texts(formats: LayerPrecision | PartialPrecision) -> dict[str, Any]:
    found = {field.name: getattr(formats, field.name) for field in fields(LayerPrecision)}
    return {name: str(fmt) for name, fmt in found.items() if fmt is not None}


def _partial(rule: str | LayerRule) -> PartialPrecision:
    if isinstance(rule, str):
        return PartialPrecision.same(NumberFormat.parse(rule))
    formats = rule.model_dump(exclude={"optional"}, exclude_none=True)
    parsed = {name: NumberFormat.parse(text) for name, text in formats.items()}
    return PartialPrecision(**parsed, optional=rule.optional)
