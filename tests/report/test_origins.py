from __future__ import annotations

from hwsim.report.origins import assumption_lines


def test_one_assumption_is_one_wrapped_entry() -> None:
    shown = assumption_lines(
        ["arch.dram.efficiency = 0.9: as the 5 nm descendant, which measures 150 of 166.4"], width=50
    )
    assert shown == "  dram.efficiency = 0.9: as the 5 nm descendant,\n      which measures 150 of 166.4"


def test_neighbours_with_one_reason_are_one_entry() -> None:
    shown = assumption_lines(["arch.dram.a = 1: why", "arch.dram.b.c = 2: why", "arch.host.d = 3: other", "e: last"])
    assert shown == "  dram: a = 1, b.c = 2: why\n  host.d = 3: other\n  e: last"


def test_without_a_common_path_all_are_named() -> None:
    assert assumption_lines(["cores = 1: why", "array.arrays_per_core = 1: why"]) == (
        "  cores = 1, array.arrays_per_core = 1: why"
    )


def test_many_with_one_reason_are_counted() -> None:
    entries = [f"arch.vector.functions.f{i}.energy_pj = {i}: why" for i in range(7)]
    assert assumption_lines(entries) == "  vector.functions.* (7 numbers): why"
    assert assumption_lines(entries, listed=7).startswith("  vector.functions: f0.energy_pj = 0, f1.energy_pj = 1")
    assert assumption_lines([f"a{i} = {i}: why" for i in range(7)]) == "  7 numbers from a0 = 0 on: why"


def test_a_reason_may_hold_colons_and_lines() -> None:
    assert assumption_lines(["a = 1: source: x,\n  page 2: y"]) == "  a = 1: source: x, page 2: y"
