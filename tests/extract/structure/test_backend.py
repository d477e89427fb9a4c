"""ONNX's own examples of operators: the sizes in the graph are those of the results, or the example is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.onnx import read_structure  # noqa: E402

OPERATORS = (
    "MatMul", "Gemm", "LSTM", "GRU", "LayerNormalization", "BatchNormalization", "InstanceNormalization",
    "GroupNormalization", "Softmax", "LogSoftmax", "Gather", "GatherElements", "GatherND", "Transpose", "Reshape",
    "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat", "Expand", "Tile", "Pad", "Clip", "Where", "Pow",
    "ReduceMean", "ReduceSum", "ReduceMax", "TopK", "ArgMax", "Einsum", "Gelu", "Conv", "QLinearMatMul",
    "MatMulInteger", "DynamicQuantizeLinear", "Attention", "RMSNormalization",
)  # fmt: skip
"""Operators whose examples are read with all inputs but the first as constants."""
REASONS = (
    "must have no past", "must use its running statistics", "must be a product of two operands",
    "must have fixed sizes",
    "must have no peepholes", "must read one matrix for each index", "must have no output that is read but the first",
)  # fmt: skip
"""What an example may be refused for."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", OPERATORS)
def test_sizes_of_results(tmp_path: Path, op: str) -> None:
    from onnx.backend.test.case.node import collect_testcases

    read, refused = 0, []
    for case in collect_testcases(None):  # a name here would be kept by onnx for all later calls
        if case.model is None or not case.data_sets or [node.op_type for node in case.model.graph.node] != [op]:
            continue
        inputs, outputs = case.data_sets[0]
        path = tmp_path / f"{case.name}.onnx"
        path.write_bytes(_with_constants(case.model, inputs).SerializeToString())
        try:
            graph = read_structure(path)
        except HwsimError as error:
            refused.append(str(error))
            continue
        names = [value.name for value in case.model.graph.output]
        for name, output in zip(names, outputs, strict=True):
            if name in graph.outputs:
                assert graph.values[name].shape == np.shape(output), case.name
        read += 1
    assert read
    assert [text for text in refused if "\n" in text or not any(reason in text for reason in REASONS)] == []


def _with_constants(model: Any, inputs: Any) -> Any:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for value, array in list(zip(model.graph.input, inputs, strict=False))[1:]:
        if isinstance(array, np.ndarray):
            found.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return found
