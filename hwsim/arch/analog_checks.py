"""Rules of analog tiles that concern more than one field."""

from __future__ import annotations

from collections.abc import Iterator

from hwsim.arch.analog import AnalogTiles
from hwsim.arch.checks import Problem


def analog_problems(analog: AnalogTiles | None) -> Iterator[Problem]:
    """Every broken rule of the block that concerns more than one field."""
    if analog is None:
        return
    converter = analog.converter
    for key, kind in (("columns", "shared"), ("outputs_per_step", "none")):
        given = getattr(converter, key)
        if (given is None) == (converter.kind == kind):
            rule = f"given when kind is {kind}" if given is None else f"left out when kind is {converter.kind}"
            got = "nothing" if given is None else str(given.value)
            yield Problem(("analog", "converter", key), rule, got)
    for name, mode in analog.modes.items():
        devices = mode.devices_per_weight.value * mode.rows.value * mode.columns.value
        if devices > analog.devices_per_tile.value:
            rule = f"such that devices_per_weight x rows x columns is at most {analog.devices_per_tile.value}"
            yield Problem(("analog", "modes", name), rule, str(devices))
    yield from _placement_problems(analog)


def _placement_problems(analog: AnalogTiles) -> Iterator[Problem]:
    placement, modes = analog.placement, ", ".join(repr(name) for name in analog.modes)
    place = ("analog", "placement")
    if placement.default_mode is not None and placement.default_mode not in analog.modes:
        yield Problem((*place, "default_mode"), f"one of {modes}", repr(placement.default_mode))
    for name, rule in placement.rules.items():
        where = (*place, "rules", name)
        if rule.mode is not None and rule.mode not in analog.modes:
            yield Problem((*where, "mode"), f"one of {modes}", repr(rule.mode))
        if rule.chip is not None and rule.chip.value > analog.chips.value:
            yield Problem((*where, "chip"), f"at most {analog.chips.value}, the chips", str(rule.chip.value))
        if rule.copies is not None and rule.expanded_rows is not None:
            yield Problem((*where, "copies"), "left out when expanded_rows is given", str(rule.copies.value))
    if placement.overflow == "reprogram" and analog.programming is None:
        yield Problem(("analog", "programming"), "given when overflow is reprogram", "nothing")
