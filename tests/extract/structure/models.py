"""Small ONNX models of any domain, whose outputs have no sizes of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.extract.onnx import models
from tests.extract.onnx.models import FLOAT, helper


class Model(models.Model):
    """A graph that grows; its outputs are not typed by ONNX's inference, which knows no other domains."""

    def proto(self, outputs: Iterable[str]) -> Any:
        shown = [helper.make_tensor_value_info(name, FLOAT, []) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, shown, self.constants)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=12 if self.opset > 23 else 10)
