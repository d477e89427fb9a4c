"""What a machine reaches on work that suits it: operations per joule of a large matrix product."""

from __future__ import annotations

import numpy as np

from hwsim.arch import Architecture
from hwsim.cost.matmul import Products, memory_energy_pj, product_costs
from hwsim.numerics.formats import BASES, NumberFormat

ROWS = 65536
INNER, OUTPUTS = 8192, 8192
HFP8_BITS = 8


def peak_efficiency_ops_per_j(arch: Architecture, fmt: str) -> float:
    """Operations per joule (2 per MAC) of a `(65536, 8192) @ (8192, 8192)` product on all cores.

    Counts MACs, scratchpad traffic and leakage of the chip, not DRAM, host or vector unit; operands are in the
    scratchpads already. Raises HwsimError for a format that the machine cannot compute.
    """
    native = arch.compute_format(fmt)
    bits = NumberFormat.parse(native).code_bits if native in BASES else HFP8_BITS
    one = np.ones(1, dtype=np.int64)
    costs = product_costs(
        arch,
        native,
        Products(
            m=one * ROWS,
            k=one * INNER,
            n=one * OUTPUTS,
            batch=one,
            cores=one * arch.cores.value,
            weight_bits=one * bits,
            activation_bits=one * bits,
            copies_allowed=np.ones(1, dtype=bool),
        ),
    )
    cycles = int((costs.stream_cycles + costs.load_cycles + costs.overhead_cycles)[0])
    dynamic_pj = costs.mac_energy_pj[0] * arch.logic_energy_scale + memory_energy_pj(arch, costs)[0]
    joules = dynamic_pj * 1e-12 + arch.leakage_power_w * cycles / arch.clock_hz
    return float(2 * ROWS * INNER * OUTPUTS / joules)
