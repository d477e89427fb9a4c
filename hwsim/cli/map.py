"""`hwsim map`."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.arch import load_arch
from hwsim.cli.options import settings
from hwsim.cli.printing import say
from hwsim.cost.mapping import place
from hwsim.decode.search import default_settings, split_changes, utterance_trace
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.report.analog import mapping_report


def run_map(arch: str, workload: str, set_: Sequence[str]) -> None:
    """Print where the weights of a decode lie on analog tiles. Raises HwsimError for a machine without any."""
    of_machine, of_decode = split_changes(settings(set_))
    machine, network = load_arch(arch, of_machine), load_workload(workload)
    if machine.analog is None:
        raise HwsimError(f"ARCH must be an architecture with analog tiles, got {machine.name}, which has none")
    decode = default_settings(network, changes=of_decode)
    mapping = place(machine, utterance_trace(network, decode, network.decode.frames))
    assert mapping is not None
    say(mapping_report(machine, network.name, mapping))
