"""Other runtimes that compute what an executable is compared with."""

from __future__ import annotations

from hwsim.errors import HwsimError, nearest
from hwsim.execute.semantics import profile as profile_of
from hwsim.validate.oracles.base import Computed, Oracle, Readable

ORACLES = ("torch", "onnxruntime", "litert")

__all__ = ["ORACLES", "Computed", "Oracle", "Readable", "against"]


def against(name: str, profile: str | None = None) -> Oracle:
    """The oracle `torch`, `onnxruntime` or `litert`, as the reference of `compare`.

    `torch` reads the operations in floating point: float32 at T2 (its default) and T3, float64 at T1; any `profile`
    of the executable. `onnxruntime` runs its integer products by the profile onnx; `litert` by tflite-xnnpack (its
    default), tflite-ruy, tflite-reference or, for LSTM layers, tflite-lstm. Both are for T0.
    Raises HwsimError for an unknown name, a profile that does not fit, and a package that is missing.
    """
    semantics = None if profile is None else profile_of(profile)
    if name == "torch":
        _check_torch()
        from hwsim.validate.oracles.torch_graph import TorchGraph

        return TorchGraph(semantics)
    if name == "onnxruntime":
        from hwsim.validate.oracles.onnxruntime_products import OnnxRuntime

        return OnnxRuntime(profile)
    if name == "litert":
        from hwsim.validate.oracles.litert_products import LiteRt

        return LiteRt(profile)
    raise HwsimError(f"the oracle must be one of {', '.join(ORACLES)}, got '{name}'{nearest(name, ORACLES)}")


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise HwsimError("--against torch needs PyTorch: install hwsim[train]") from None
