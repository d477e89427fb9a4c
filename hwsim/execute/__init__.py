"""The trace run on integers."""

from hwsim.execute.matmul import group_products, matmul, matmul_wide
from hwsim.execute.packing import PackedWeights, pack

__all__ = ["PackedWeights", "group_products", "matmul", "matmul_wide", "pack"]
