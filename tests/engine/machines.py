"""Random machines: shipped ones with the numbers changed that decide what fits, what waits and what is shared."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch


@cache
def _content(name: str) -> dict[str, Any]:
    return load_arch(name).model_dump()


def changed(name: str, changes: Mapping[str, Any], content: Mapping[str, Any] | None = None) -> Architecture:
    """A shipped machine, or other content, with values at dotted paths replaced; a number keeps its origin."""
    content = copy.deepcopy(dict(content or _content(name)))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = content
        for key in parents:
            node = node[key]
        node[last] = node[last] | {"value": value} if isinstance(node[last], dict) else value
    return Architecture.model_validate(content)


@st.composite
def machines(draw: st.DrawFn) -> Architecture:
    """One to five cores, scratchpads from tight to roomy, slow and fast memory, every way of calling networks."""
    name = draw(st.sampled_from(("rapid_4core", "rapid_4core", "systolic_128", "edge_npu")))
    one_of = {
        "dram.bandwidth_bytes_per_s": (1e8, 5e9, 68.3e9, 1e12),
        "dram.latency_s": (0.0, 1e-7, 3e-6),
        "dram.burst_bytes": (1, 64, 512),
        "dram.efficiency": (0.5, 1.0),
        "memory.scratchpad.scope": ("core", "shared"),
        "memory.stream_buffer_fraction": (0.05, 0.125, 0.4),
        "memory.activation_fraction": (0.05, 0.0625, 0.3),
        "memory.weight_residency": (True, False),
        "host.persistent_kernel": (True, False),
        "host.state_cache": ("device", "host"),
        "host.per_step_s": (0.0, 1e-6),
        "host.per_launch_s": (0.0, 2e-6),
        "host.link_latency_s": (0.0, 5e-7),
        "vector.latency_cycles": (0, 16),
    }
    changes = {path: draw(st.sampled_from(values)) for path, values in one_of.items()}
    if name == "rapid_4core":
        changes["cores"] = draw(st.integers(1, 5))
        changes["interconnect.bytes_per_cycle"] = draw(st.sampled_from((1.0, 128.0)))
        changes["interconnect.hop_latency_cycles"] = draw(st.sampled_from((0, 4)))
        changes["memory.scratchpad.capacity_bytes"] = draw(st.sampled_from((2**16, 2**18, 2**21)))
    else:
        dataflows = ("weight_stationary", "output_stationary", "input_stationary")
        changes["array.dataflow"] = draw(st.sampled_from(dataflows))
        changes["memory.scratchpad.capacity_bytes"] = draw(st.sampled_from((2**15, 2**17, 2**23)))
    return changed(name, changes)
