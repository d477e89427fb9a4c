"""Networks become operations: the parametric catalogue of `workloads/`, ONNX files and PyTorch modules."""

from hwsim.extract.files import Speech, from_onnx, from_torch
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.graph.store import load_model, save_model
from hwsim.extract.interface import AnyWorkload
from hwsim.extract.workload import Workload, json_schema, load_network, load_workload, parameter_counts

__all__ = [
    "AnyWorkload",
    "ExtractedModel",
    "Speech",
    "Workload",
    "from_onnx",
    "from_torch",
    "json_schema",
    "load_model",
    "load_network",
    "load_workload",
    "parameter_counts",
    "save_model",
]
