"""Quantized ONNX files become traces with codes and grids. Needs the extra `onnx`."""

from hwsim.extract.onnx.files import with_all_outputs
from hwsim.extract.onnx.layout import Layout, View
from hwsim.extract.onnx.network import ImportedNetwork, read_onnx

__all__ = ["ImportedNetwork", "Layout", "View", "read_onnx", "with_all_outputs"]
