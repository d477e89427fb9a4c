"""The JSON Schemas of the networks and the policies: committed, current, and kept by every shipped file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from hwsim import catalogue, extract
from hwsim.config import read_document
from hwsim.numerics import policy_file

SCHEMAS = {"workloads": extract.json_schema, "workloads/policies": policy_file.json_schema}
FILES = [(kind, name) for kind in SCHEMAS for name in catalogue.names(kind)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_committed_schema_is_current(kind: str) -> None:
    committed = (catalogue.data_folder(kind) / catalogue.SCHEMA_FILE).read_text(encoding="utf-8")
    assert committed == catalogue.schema_text(SCHEMAS[kind]()), f"write it with catalogue.write_schema('{kind}', ...)"
    Draft202012Validator.check_schema(json.loads(committed))


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_shipped_file_begins_with_its_schema_and_fits_it(kind: str, name: str) -> None:
    path = catalogue.data_folder(kind) / f"{name}.yaml"
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    Draft202012Validator(SCHEMAS[kind]()).validate(read_document(path).data)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("workloads", {"encoder": {"input": 340, "layers": 0, "cells": 640, "source": "s"}}),
        ("workloads", {"joint": {"combine": "sum", "size": 256, "activation": "tanh", "outputs": 46, "source": "s"}}),
        ("workloads", {"beam": 4}),
        ("workloads", {"family": "ctc"}),
        ("workloads", {"family": "conformer"}),
        ("workloads/policies", {"default": {"weights": "int4"}}),
        ("workloads/policies", {"layers": {"*": {"weight": "int4"}}}),
        ("workloads/policies", {"layers": {"*": 4}}),
    ],
)
def test_the_schema_refuses(kind: str, change: dict[str, Any]) -> None:
    name = {"workloads": "rnnt_swb300", "workloads/policies": "int8"}[kind]
    whole = read_document(catalogue.data_folder(kind) / f"{name}.yaml").data
    validator = Draft202012Validator(SCHEMAS[kind]())
    assert validator.is_valid(whole)
    assert not validator.is_valid({**whole, **change})
