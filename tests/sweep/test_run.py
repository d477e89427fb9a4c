"""A sweep writes what direct runs give, says what cannot run, and leaves nothing behind when it fails."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hwsim import HwsimError, __version__, load_arch, load_policy, load_workload, simulate
from hwsim.errors import CapacityError
from hwsim.sweep import SweepRequest, points, run_sweep
from hwsim.sweep.row import Row
from hwsim.sweep.work import Job

SMALL = SweepRequest(
    archs=("rapid_4core",),
    workload="rnnt_swb300",
    precisions=("fp16", "int4"),
    beams=(1, 4),
    lms=("none", "density-ratio"),
    frames=12,
    settings={"dram.bandwidth_bytes_per_s": ("50e9", "2e11")},
)
COMPONENTS = ("encoder", "search", "prediction", "joint", "source_lm", "external_lm")


def request(**change: Any) -> SweepRequest:
    """One point, changed."""
    small = {"archs": ("rapid_4core",), "workload": "rnnt_swb300", "beams": (2,), "lms": ("none",), "frames": 8}
    return SweepRequest(**(small | change))


def read(out: Path) -> pd.DataFrame:
    """The table as text: every figure is written with all its digits."""
    return pd.read_csv(out / "sweep.csv", dtype=str)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    out = tmp_path_factory.mktemp("sweep") / "new" / "folder"
    return run_sweep(SMALL, out), out


def test_rows_are_the_points_in_order(swept: tuple[pd.DataFrame, Path]) -> None:
    table = read(swept[1])
    assert list(table.columns) == [
        "arch", "workload", "precision", "decoder", "beam", "lm", "frames", "dram.bandwidth_bytes_per_s",
        "rtf", "latency_s", "energy_j", "energy_per_audio_second_j", "cycles", "compression", "bound",
        *(f"{name}_{figure}" for name in COMPONENTS for figure in ("latency_s", "energy_j", "dram_bytes")),
        "arch_digest", "workload_digest", "policy_digest", "hwsim", "error",
    ]  # fmt: skip
    wanted = [
        (p.arch, p.workload, p.precision, p.decoder, str(p.beam), p.lm, "12", str(float(p.settings[0][1])))
        for p in points(SMALL)
    ]
    assert list(table.iloc[:, :8].itertuples(index=False, name=None)) == wanted
    assert table.error.isna().all()


def test_figures_are_those_of_direct_runs(swept: tuple[pd.DataFrame, Path]) -> None:
    workload = load_workload("rnnt_swb300")
    for _, row in read(swept[1]).iterrows():
        arch = load_arch("rapid_4core", {"dram.bandwidth_bytes_per_s": row["dram.bandwidth_bytes_per_s"]})
        direct = simulate(arch, workload, row.precision, beam=int(row.beam), lm=row.lm, frames=12)
        for figure in ("rtf", "latency_s", "energy_j", "energy_per_audio_second_j", "cycles", "compression"):
            assert row[figure] == str(getattr(direct, figure)), figure
        parts = direct.components
        assert row.bound == max(parts.values(), key=lambda part: part.latency_s).bound
        for name in COMPONENTS:
            for figure in ("latency_s", "energy_j", "dram_bytes"):
                cell = row[f"{name}_{figure}"]
                assert cell == str(getattr(parts[name], figure)) if name in parts else pd.isna(cell)


def test_rows_name_what_made_them(swept: tuple[pd.DataFrame, Path]) -> None:
    table = read(swept[1])
    arch = load_arch("rapid_4core", {"dram.bandwidth_bytes_per_s": "2e11"})
    row = table[table["dram.bandwidth_bytes_per_s"] == "200000000000.0"].iloc[0]
    assert row.arch_digest == arch.digest[:12]
    assert row.workload_digest == load_workload("rnnt_swb300").digest
    assert row.policy_digest == load_policy(row.precision).digest[:12]
    assert row.hwsim == __version__
    assert table.arch_digest.nunique() == 2
    assert table.policy_digest.nunique() == 2


def test_the_table_returned_is_the_table_written(swept: tuple[pd.DataFrame, Path]) -> None:
    frame, out = swept
    assert frame.to_csv(index=False) == (out / "sweep.csv").read_text()
    assert [path.name for path in out.iterdir()] == ["sweep.csv"]
    assert str(frame.cycles.dtype) == "Int64"


def test_workers_give_the_same_table(swept: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    run_sweep(SMALL, tmp_path / "two", jobs=2)
    assert (tmp_path / "two" / "sweep.csv").read_bytes() == (swept[1] / "sweep.csv").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_counts_every_point(tmp_path: Path, jobs: int) -> None:
    seen: list[tuple[int, int]] = []
    run_sweep(SMALL, tmp_path, lambda done, total: seen.append((done, total)), jobs=jobs)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (16, 16)


def test_the_event_engine_gives_the_same_cycles(tmp_path: Path) -> None:
    fast, event = (run_sweep(request(engine=engine), tmp_path / engine) for engine in ("fast", "event"))
    assert fast.cycles.tolist() == event.cycles.tolist()


def test_a_setting_that_is_no_number_is_kept_as_text(tmp_path: Path) -> None:
    settings = {"operating_point": ("fast", "efficient"), "host.persistent_kernel": ("true",), "cores": ("2",)}
    run_sweep(request(settings=settings), tmp_path)
    table = pd.read_csv(tmp_path / "sweep.csv", dtype=str)
    assert table.operating_point.tolist() == ["fast", "efficient"]
    assert table["host.persistent_kernel"].tolist() == ["true", "true"]
    assert table.cores.tolist() == ["2", "2"]


def test_a_point_that_cannot_run_says_why_and_the_others_run(tmp_path: Path) -> None:
    frame = run_sweep(request(precisions=("fp32", "int4")), tmp_path)
    assert frame.error.iloc[0] == (
        "rapid_4core cannot compute fp32: it computes fp16, hfp8, int4, int2; no fallback for fp32 in its file"
    )
    empty, full = (read(tmp_path).iloc[i] for i in (0, 1))
    assert empty[["rtf", "cycles", "bound", "encoder_latency_s"]].isna().all()
    assert empty[["arch", "precision", "beam", "policy_digest"]].notna().all()
    assert full[["rtf", "cycles", "bound", "encoder_latency_s"]].notna().all()
    assert full.cycles == str(frame.cycles.iloc[1])


def test_a_network_that_does_not_fit_is_one_row(tmp_path: Path) -> None:
    settings = {"memory.scratchpad.capacity_bytes": ("131072", "2097152")}
    wide = request(precisions=("fp16",), beams=(32,), lms=("density-ratio",), settings=settings)
    frame = run_sweep(wide, tmp_path)
    small = load_arch("rapid_4core", {"memory.scratchpad.capacity_bytes": "131072"})
    with pytest.raises(CapacityError) as raised:
        simulate(small, "rnnt_swb300", "fp16", beam=32, frames=8)
    assert frame.error.iloc[0] == str(raised.value)
    assert pd.isna(frame.error.iloc[1])
    assert frame.cycles.isna().tolist() == [True, False]


def test_a_sweep_without_any_point_that_runs_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(HwsimError) as raised:
        run_sweep(request(precisions=("fp32",)), out)
    assert str(raised.value) == (
        "no point of the sweep can run: rapid_4core cannot compute fp32: it computes fp16, hfp8, int4, int2;"
        " no fallback for fp32 in its file"
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"archs": ("rapid_4cor",)},
            "unknown architecture 'rapid_4cor'; nearest: rapid_4core, rapid_1core, hermes_64core",
        ),
        ({"precisions": ("int4", "int44")}, "unknown policy 'int44'; nearest: int4, int8, int6"),
        (
            {"lms": ("none", "deep")},
            "lm must be none, shallow or density-ratio, got 'deep'; known: density-ratio, none, shallow",
        ),
        (
            {"settings": {"dram.bandwith_bytes_per_s": ("1e9",)}},
            "--set dram.bandwith_bytes_per_s: no key 'bandwith_bytes_per_s' in dram; nearest: bandwidth_bytes_per_s,"
            " burst_bytes",
        ),
        (
            {"settings": {"dram.bandwidth_bytes_per_s": ("1e9", "-1")}},
            "--set: dram.bandwidth_bytes_per_s must be greater than 0, got -1",
        ),
    ],
)
def test_a_mistake_is_found_before_anything_runs(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    seen: list[int] = []
    with pytest.raises(HwsimError) as raised:
        run_sweep(request(**change), tmp_path / "out", lambda done, total: seen.append(done))
    assert str(raised.value) == message
    assert not seen
    assert not (tmp_path / "out").exists()


def test_jobs_must_be_a_count(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match=r"^jobs must be at least 1, got 0$"):
        run_sweep(request(), tmp_path, jobs=0)


def test_a_folder_that_cannot_be_written_is_found_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "taken" / "sweep.csv").mkdir(parents=True)
    seen: list[int] = []
    for out, message in (
        (file, f"{file}: must be a folder to write to, got a file"),
        (file / "below", f"{file / 'below'}: must be a folder to write to, got Not a directory"),
        (tmp_path / "taken", f"{tmp_path / 'taken' / 'sweep.csv'}: must be a file to write to, got a folder"),
    ):
        with pytest.raises(HwsimError) as raised:
            run_sweep(request(), out, lambda done, total: seen.append(done))
        assert str(raised.value) == message
    assert not seen
    assert file.read_text() == "mine"


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_sweep_stops_its_workers_and_keeps_the_old_table(tmp_path: Path, jobs: int) -> None:
    (tmp_path / "sweep.csv").write_text("old")
    before = set(multiprocessing.active_children())

    def interrupt(done: int, total: int) -> None:
        if done > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(SMALL, tmp_path, interrupt, jobs=jobs)
    assert set(multiprocessing.active_children()) == before
    assert (tmp_path / "sweep.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_a_killed_worker_is_an_error_and_not_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = os.getpid()

    def run_or_die(job: Job) -> Row:
        if os.getpid() != home:
            os._exit(9)
        return {"rtf": 1.0}

    monkeypatch.setattr("hwsim.sweep.work.run_job", run_or_die)
    with pytest.raises(HwsimError) as raised:
        run_sweep(SMALL, tmp_path / "out", jobs=2)
    assert str(raised.value) == "a worker of the sweep was killed, perhaps for want of memory; fewer workers need less"
    assert not (tmp_path / "out").exists()
