"""ONNX files: quantized ones become traces with codes and grids, all become graphs. Needs the extra `onnx`."""

from hwsim.extract.onnx.files import with_all_outputs
from hwsim.extract.onnx.layout import Layout, View
from hwsim.extract.onnx.network import ImportedNetwork, read_onnx
from hwsim.extract.onnx.structure import read_structure

__all__ = ["ImportedNetwork", "Layout", "View", "read_onnx", "read_structure", "with_all_outputs"]
