"""`hwsim train`."""

from __future__ import annotations

from pathlib import Path

from hwsim.cli.options import choice, integer
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError
from hwsim.extract import Workload, load_network
from hwsim.report.files import check_output_folder
from hwsim.report.layout import facts_grid

ALL = "all"


def run_train(workload: str, network: str, precision: str, data: Path, out: Path, epochs: str | None,
              seed: str | None, start: Path | None) -> None:  # fmt: skip
    """Train one network or all of them, each into a folder of its own, and print what they reached."""
    from hwsim.train.recipes import network_recipe
    from hwsim.train.run import NETWORKS, Request, train

    network_recipe(precision)
    choice("--network", network, (*NETWORKS, ALL))
    if start is not None and network == ALL:
        raise HwsimError("--start must be given with one --network, got all")
    counts = {"--epochs": integer("--epochs", epochs), "--seed": integer("--seed", seed)}
    for option, value in counts.items():
        if value is not None and value < 0:
            raise HwsimError(f"{option} must be at least 0, got {value}")
    check_output_folder(out)
    loaded = load_network(workload)
    names = [name for name in NETWORKS if name == network or network == ALL]
    names = [name for name in names if name == "transducer" or name in loaded.language_models or network != ALL]
    for name in names:
        command = f"hwsim train {workload} --network {name} --precision {precision}"
        command += "".join(f" {option} {value}" for option, value in counts.items() if value is not None)
        request = Request(loaded, name, precision, data, out / name, counts["--seed"] or 0, counts["--epochs"], start,
                          command)  # fmt: skip
        with progress_bar(f"{name} {precision}") as on_step:
            config = train(request, on_step)
        facts = {
            "Network": f"{name} of {loaded.name}, {precision}, seed {config.seed}",
            "Epochs": ", ".join(f"{count} {stage}" for stage, count in config.epochs.items()),
            **{_title(key): f"{value:g}" for key, value in config.figures.items()},
        }
        say(facts_grid(facts), f"Wrote {request.out}", "")
    if network == ALL:
        _write_recognizer(loaded, out, data)


def _write_recognizer(workload: Workload, out: Path, data: Path) -> None:
    """The networks in one file, as executables."""
    from hwsim.recognize import save_recognizer
    from hwsim.recognize.store import recognizer_file
    from hwsim.train.recognizer import build_recognizer, fusions_of

    recognizer = build_recognizer(out, data, fusions_of(workload.spec))
    path = out / recognizer_file(recognizer.about["precision"])
    save_recognizer(recognizer, path)
    say(f"Wrote {path}: decode with it by hwsim study {workload.name} --recognizers {out} --data {data}")


def _title(key: str) -> str:
    """A figure's name with its unit."""
    if key.startswith("wer_"):
        return f"WER {key.removeprefix('wer_')}, %"
    known = {"loss": "Loss", "cpu_s": "CPU time, all stages, s", "wall_s_of_stage": "Time, last stage, s"}
    return known.get(key, key.replace("_", " ").capitalize())
