"""ONNX files of any kind, float or quantized, become graphs of few kinds of nodes. Needs the extra `onnx`."""

from hwsim.extract.onnx.structure.read import read_structure

__all__ = ["read_structure"]
