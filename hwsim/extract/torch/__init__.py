"""PyTorch modules become graphs, through `torch.export`. Needs PyTorch, of the extra `train`."""

from hwsim.errors import HwsimError

try:
    import torch as _torch
except ImportError:
    raise HwsimError("reading PyTorch modules needs PyTorch: install hwsim[train]") from None

from hwsim.extract.torch.checkpoint import load_weights
from hwsim.extract.torch.module import read_module

__all__ = ["load_weights", "read_module"]
del _torch
