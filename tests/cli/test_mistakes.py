"""Each mistake of a user's is one line on standard error and exit code 2; every message is asserted in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwsim import catalogue
from hwsim.cli import run as run_module
from hwsim.extract import load_workload
from tests.cli.conftest import Call

Refused = Callable[..., str]

PAIR = ("rapid_4core", "rnnt_swb300")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("rapid_4cor", "rnnt_swb300"),
            "unknown architecture 'rapid_4cor'; nearest: rapid_4core, rapid_1core, hermes_64core",
        ),
        (("rapid_4core", "rnnt_swb"), "unknown workload 'rnnt_swb'; nearest: rnnt_swb300, tdnnf_swbd, rnnt_gq"),
        ((*PAIR, "--precision", "int44"), "unknown policy 'int44'; nearest: int4, int8, int6"),
        ((*PAIR, "--versus", "fp61"), "unknown policy 'fp61'; nearest: fp16, fp32, bf16"),
        ((*PAIR, "--precision", "fp32"), "rapid_4core cannot compute fp32: it computes fp16, hfp8, int4, int2;"
                                         " no fallback for fp32 in its file"),
        (("edge_npu", "tdnnf_swbd", "--beam", "4"), "beam must be left out for tdnnf_swbd, got 4: its search in a"
         " decoding graph is outside; --set decode.n_best is how many hypotheses are rescored"),
        ((*PAIR, "--beam", "0"), "beam must be at least 1, got 0"),
        ((*PAIR, "--beam", "-3"), "beam must be at least 1, got -3"),
        ((*PAIR, "--beam", "four"), "--beam must be an integer, got 'four'"),
        ((*PAIR, "--beam", "2.5"), "--beam must be an integer, got '2.5'"),
        ((*PAIR, "--frames", "0"), "frames must be at least 1, got 0"),
        ((*PAIR, "--frames", "x"), "--frames must be an integer, got 'x'"),
        ((*PAIR, "--decoder", "viterbi"), "--decoder must be greedy, alsd, tsd or maes, got 'viterbi'"),
        ((*PAIR, "--decoder", "asld"), "--decoder must be greedy, alsd, tsd or maes, got 'asld'; nearest: alsd"),
        ((*PAIR, "--lm", "deep"), "--lm must be none, shallow or density-ratio, got 'deep'"),
        ((*PAIR, "--engine", "slow"), "--engine must be fast or event, got 'slow'"),
        ((*PAIR, "--decoder", "greedy", "--beam", "4"), "beam must be 1 for greedy, got 4"),
        (("rapid_4core", "rnnt_mlperf", "--lm", "shallow"), "lm shallow must have external_lm in workload rnnt_mlperf,"
                                                            " got no language model"),
        ((*PAIR, "--set", "dram"), "--set must be path=value, got 'dram'"),
        ((*PAIR, "--set", "=3"), "--set must be path=value, got '=3'"),
        ((*PAIR, "--set", "dram.efficiency="), "--set must be path=value, got 'dram.efficiency='"),
        ((*PAIR, "--set", "dram.efficiency=0.5", "--set", "arch.dram.efficiency=0.6"),
         "--set dram.efficiency must be given once, got 0.5 and 0.6"),
        ((*PAIR, "--set", "dram.bandwith=3"),
         "--set dram.bandwith: no key 'bandwith' in dram; nearest: bandwidth_bytes_per_s"),
        ((*PAIR, "--set", "dram.bandwidth_bytes_per_s=-3"),
         "--set: dram.bandwidth_bytes_per_s must be greater than 0, got -3"),
        (("rapid_4core",), "missing argument 'WORKLOAD' (see hwsim simulate --help)"),
    ],
)  # fmt: skip
def test_simulate_refuses(words: tuple[str, ...], message: str, refused: Refused) -> None:
    assert refused("simulate", *words) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--beam", "1,,2"), "--beam must be values separated by commas, got '1,,2'"),
        (("--beam", "1,x"), "--beam must be integers separated by commas, got '1,x'"),
        (("--beam", "1,2,1"), "--beam must name each value once, got '1' twice"),
        (("--beam", "0,1"), "beam must be at least 1, got 0"),
        (("--frames", "0"), "frames must be at least 1, got 0"),
        (("--precision", "int4,int44"), "unknown policy 'int44'; nearest: int4, int8, int6"),
        (("--precision", "fp32"), "no point of the sweep can run: rapid_4core cannot compute fp32: it computes fp16,"
                                  " hfp8, int4, int2; no fallback for fp32 in its file"),
        (("--decoder", "alsd,asld"), "--decoder must be greedy, alsd, tsd or maes, got 'asld'; nearest: alsd"),
        (("--lm", "none,some"), "--lm must be none, shallow or density-ratio, got 'some'"),
        (("--engine", "slow"), "--engine must be fast or event, got 'slow'"),
        (("--set", "dram.efficiency=,"), "--set dram.efficiency must be values separated by commas, got ','"),
        (("--set", "dram.eficiency=1"), "--set dram.eficiency: no key 'eficiency' in dram; nearest: efficiency"),
    ],
)  # fmt: skip
def test_sweep_refuses_and_leaves_nothing(
    words: tuple[str, ...], message: str, refused: Refused, tmp_path: Path
) -> None:
    assert refused("sweep", *PAIR, "--out", tmp_path / "out", *words) == message
    assert list(tmp_path.iterdir()) == []


def test_sweep_needs_an_architecture_a_workload_and_a_folder(refused: Refused, tmp_path: Path) -> None:
    message = "sweep must be given at least one architecture and then the workload, got 'rapid_4core' only"
    assert refused("sweep", "rapid_4core", "--out", tmp_path) == message
    assert refused("sweep", *PAIR) == "missing option '--out' (see hwsim sweep --help)"
    assert refused("sweep", *reversed(PAIR), "--out", tmp_path) == (
        f"unknown workload 'rapid_4core'; known: {', '.join(catalogue.names('workloads'))}"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "arch"), "list must be archs, workloads or policies, got 'arch'; nearest: archs"),
        (("list", "x"), "list must be archs, workloads or policies, got 'x'"),
        (("show", "rapid"), "unknown architecture, workload or policy 'rapid'; nearest: rapid_4core, rapid_1core"),
        (("show", "int99"), "unknown architecture, workload or policy 'int99'; nearest: int8, int4, int2"),
        (("show", "int4/chanel"), "'int4/chanel' must be a number format: unknown part 'chanel'; nearest: channel"),
        (("show", "none.yaml"), "none.yaml: must be a readable YAML file, got No such file or directory"),
        (("reproduce", "rnnt-int8"), "unknown reproduction 'rnnt-int8'; nearest: rnnt-int4"),
        (("simulate",), "missing argument 'ARCH' (see hwsim simulate --help)"),
    ],
)
def test_other_commands_refuse(words: tuple[str, ...], message: str, refused: Refused) -> None:
    assert refused(*words) == message


@pytest.mark.parametrize(
    ("words", "part", "hint"),
    [
        (("simulat", "a"), "'simulat'", "(see hwsim --help)"),
        (("simulate", "a", "b", "--beem", "3"), "--beem", "(see hwsim simulate --help)"),
        (("simulate", "a", "b", "c"), "(c)", "(see hwsim simulate --help)"),
        (("--verson",), "--verson", "(see hwsim --help)"),
    ],
)
def test_usage_mistakes_say_where_to_look(words: tuple[str, ...], part: str, hint: str, refused: Refused) -> None:
    # The words in between are those of the installed version of typer.
    message = refused(*words)
    assert part in message
    assert message.endswith(hint)


def test_a_wrong_key_is_named_with_file_and_line(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: rapid_4core\nname: mine\ndescription: d\ndram: {bandwith: 3}\n", encoding="utf-8")
    message = f"{path}:4: dram.bandwith must be a known key, got 'bandwith'; nearest: bandwidth_bytes_per_s"
    assert refused("simulate", path, "rnnt_swb300") == message
    assert refused("show", path) == message


def test_a_duplicate_key_is_named_with_file_and_line(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: rapid_4core\nname: mine\nname: yours\n", encoding="utf-8")
    assert refused("simulate", path, "rnnt_swb300") == f"{path}:3: each key must be given once, got 'name' twice"


def test_a_file_of_another_kind_is_not_shown(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: 1\n", encoding="utf-8")
    assert refused("show", path) == (
        f"{path}:1: must be an architecture, a workload or a policy, got a file of another kind"
    )


def test_a_network_that_does_not_fit_is_one_line(refused: Refused) -> None:
    message = refused("simulate", *PAIR, "--set", "memory.scratchpad.capacity_bytes=100000")
    assert message.startswith("rnnt_swb300 does not fit rapid_4core: ")


@pytest.mark.parametrize("option", ["--json", "--csv", "--timeline"])
def test_simulate_checks_its_files_before_it_runs(option: str, refused: Refused, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import hwsim.cli.simulate as command

    monkeypatch.setattr(command, "run_simulation", lambda *_, **__: pytest.fail("it must not run"))
    below = tmp_path / "file.txt"
    below.write_text("", encoding="utf-8")
    for path, reason in {
        below / "x": f"must be in a folder, got the file {below}",
        tmp_path / "no" / "x": f"must be in a folder that exists, got none at {tmp_path / 'no'}",
        tmp_path: "must be a file to write to, got a folder",
    }.items():
        assert refused("simulate", *PAIR, option, path) == f"{path}: {reason}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_two_outputs_need_two_files(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "x"
    message = f"--csv must be another file than --json, got {path} for both"
    assert refused("simulate", *PAIR, "--json", path, "--csv", path) == message


def test_sweep_and_reproduce_check_their_folder_before_they_run(refused: Refused, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import hwsim.cli.reproduce as reproduction
    import hwsim.cli.sweep as sweep

    monkeypatch.setattr(sweep, "run_sweep", lambda *_: pytest.fail("it must not run"))
    monkeypatch.setattr(reproduction, "REPRODUCTIONS", {"rnnt-int4": lambda *_: pytest.fail("it must not run")})
    below = tmp_path / "file.txt"
    below.write_text("", encoding="utf-8")
    (tmp_path / "rtf_over_beam.png").mkdir()
    for words in (("sweep", *PAIR), ("reproduce", "rnnt-int4")):
        assert refused(*words, "--out", below) == f"{below}: must be a folder to write to, got a file"
        assert refused(*words, "--out", below / "out") == f"{below / 'out'}: must be in a folder, got the file {below}"
    plot = tmp_path / "rtf_over_beam.png"
    assert refused("sweep", *PAIR, "--out", tmp_path) == f"{plot}: must be a file to write to, got a folder"
    assert (
        refused("reproduce", "rnnt-int4", "--json", tmp_path) == f"{tmp_path}: must be a file to write to, got a folder"
    )


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (OSError(5, "Input/output error", "disk"), "disk: Input/output error"),
        (MemoryError(), "the simulation must fit the memory of this computer; try fewer frames or hypotheses"),
    ],
)
def test_what_the_computer_refuses_is_one_line(mistake: Exception, message: str, refused: Refused,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def fail(**_: object) -> None:
        raise mistake

    monkeypatch.setattr(run_module, "app", fail)
    assert refused("list") == message


def test_an_interrupt_is_quiet(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import hwsim.cli.simulate as command

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    assert load_workload is command.load_workload
    monkeypatch.setattr(command, "load_workload", interrupt)
    assert call("simulate", *PAIR) == (130, "", "")


def test_a_defect_is_not_hidden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import hwsim.cli.simulate as command

    def fail(name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "load_workload", fail)
    with pytest.raises(ZeroDivisionError):
        call("simulate", *PAIR)
