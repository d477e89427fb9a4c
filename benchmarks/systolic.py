"""The closed form of a systolic array beside what a per-cycle simulator needs for the same count."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Measurement, median_s
from hwsim.cost import systolic_cycles

CALLS = 2000
PEER_S = 146.0
PEER = "SCALE-Sim 3.0.0, 250x1280x2560, 32x32 OS: 146 s"


def measurements() -> Iterator[Measurement]:
    """Calls per second, and the ratio to the peer's time."""

    def run() -> None:
        for _ in range(CALLS):
            systolic_cycles("os", 32, 32, 250, 1280, 2560)

    run()
    seconds = median_s(run, 5) / CALLS
    yield Measurement("systolic cycles, closed form", text=f"{1 / seconds:,.0f} calls/s, {1e6 * seconds:.2f} µs each")
    ratio = f"{PEER_S / seconds:,.0f} × (published elsewhere, not this machine)"
    yield Measurement(f"the same against {PEER}", text=ratio)
