"""The commands and their options. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim import __version__

app = typer.Typer(
    name="hwsim",
    help="Simulate low-bit accelerators that run quantized speech recognition.",
    epilog="Try: hwsim simulate rapid_4core rnnt_swb300 --precision int4 --versus fp16",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Arch = Annotated[
    str, typer.Argument(metavar="ARCH", help="Architecture: a name (see hwsim list archs) or a YAML file.")
]
Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD", help="Network: a name (see hwsim list workloads), a YAML file, or a model of hwsim extract."
    ),
]
Frames = Annotated[
    str | None, typer.Option(metavar="N", help="Encoder input frames of the utterance; default: the workload's.")
]
Engine = Annotated[
    str, typer.Option(metavar="ENGINE", help="fast (compiled) or event (SimPy, the reference); both give the same.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers as JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hwsim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list", short_help="List architectures, networks and policies.")
def list_(
    kind: Annotated[
        str | None, typer.Argument(metavar="archs|workloads|policies", help="One catalogue; default: all.")
    ] = None,
) -> None:
    """List the architectures, networks and precision policies that ship with hwsim."""
    from hwsim.cli.catalogues import list_catalogues

    list_catalogues(kind)


@app.command(short_help="Show one of them, with the source of each number.")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Architecture, workload or policy: a name or a YAML file.")
    ],
) -> None:
    """Show an architecture, a network or a precision policy: its numbers, and the source of each."""
    from hwsim.cli.catalogues import show_entry

    show_entry(name)


@app.command(short_help="Simulate one utterance.")
def simulate(
    arch: Arch,
    workload: Workload,
    precision: Annotated[
        str,
        typer.Option(metavar="P", help="Precision policy: a name, a YAML file, a format (int8/channel), or native."),
    ] = "int4",
    versus: Annotated[
        str | None, typer.Option(metavar="P2", help="Second precision, over which speed-ups are counted.")
    ] = None,
    beam: Annotated[str | None, typer.Option(metavar="N", help="Beam width; default: the workload's.")] = None,
    decoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="alsd, tsd, maes or greedy; default: the workload's.")
    ] = None,
    lm: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="none, shallow or density-ratio; default: what the workload has."),
    ] = None,
    frames: Frames = None,
    engine: Engine = "fast",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a number of the architecture; repeatable."),
    ] = None,
    json: JsonFile = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one row per component as CSV.")] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a timeline that ui.perfetto.dev opens.")
    ] = None,
) -> None:
    """Simulate one utterance: latency, energy and what bounds them, per component."""
    from hwsim.cli.simulate import Search, run_simulate

    search = Search(beam, decoder, lm, frames, engine)
    run_simulate(arch, workload, precision, versus, search, set_ or [], json=json, csv=csv, timeline=timeline)


@app.command(short_help="Simulate a grid; write a table and a plot.")
def sweep(
    names: Annotated[
        list[str], typer.Argument(metavar="ARCH... WORKLOAD", help="Architectures, and as the last name the network.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for sweep.csv and rtf_over_beam.png.")],
    precision: Annotated[str, typer.Option(metavar="P,...", help="Precision policies.")] = "fp16,int8,int4",
    beam: Annotated[str | None, typer.Option(metavar="N,...", help="Beam widths; default: the workload's.")] = None,
    decoder: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="alsd, tsd, maes, greedy; default: the workload's.")
    ] = None,
    lm: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="none, shallow, density-ratio; default: what the workload has."),
    ] = None,
    frames: Frames = None,
    engine: Engine = "fast",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=V1,V2", help="Values of a number of the architectures; repeatable."),
    ] = None,
) -> None:
    """Simulate every combination of lists of values, on all cores: a table, and a plot of RTF over beam width."""
    from hwsim.cli.sweep import run_grid

    run_grid(names, out, precision, {"beam": beam, "decoder": decoder, "lm": lm}, frames, engine, set_ or [])


@app.command("map", short_help="Show where weights lie on analog tiles.")
def map_(
    arch: Arch,
    workload: Workload,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a number of the architecture; repeatable."),
    ] = None,
) -> None:
    """Show on which chips and tiles the weight matrices of a decode lie, and which stay digital."""
    from hwsim.cli.map import run_map

    run_map(arch, workload, set_ or [])


@app.command(short_help="Put a paper's figures beside simulated ones.")
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The paper: rnnt-int4, gq, conformer-4bit, usm-lite, green-asr, analog-rnnt, or all."
        ),
    ],
    json: JsonFile = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for NAME.json and NAME.csv.")] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown too.")] = None,
) -> None:
    """Put the figures of a paper beside simulated ones, and show how much each assumption decides."""
    from hwsim.cli.reproduce import run_reproduction

    run_reproduction(name, json, out, page)


@app.command(short_help="Turn ONNX files into a model to simulate.")
def extract(
    encoder: Annotated[Path, typer.Option(metavar="FILE", help="ONNX file of the encoder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the model goes, MODEL.hwsim.")],
    prediction: Annotated[Path | None, typer.Option(metavar="FILE", help="Of the prediction network.")] = None,
    joint: Annotated[Path | None, typer.Option(metavar="FILE", help="Of the joint.")] = None,
    decoder_joint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of both in one file, as NeMo exports them.")
    ] = None,
    lm: Annotated[Path | None, typer.Option(metavar="FILE", help="Of an external language model, one step.")] = None,
    source_lm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a source language model, for the density ratio.")
    ] = None,
    bind: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="A size that the files leave open; repeatable.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="N", help="Input frames of the encoder, if its shape does not say.")
    ] = None,
    frame_period_ms: Annotated[
        str | None, typer.Option(metavar="MS", help="Time between input frames; default: 10.")
    ] = None,
    labels_per_second: Annotated[
        str | None, typer.Option(metavar="N", help="Of the speech to be decoded; default: 12, characters.")
    ] = None,
    decoder: Annotated[str | None, typer.Option(metavar="NAME", help="How it is decoded; default: alsd.")] = None,
    beam: Annotated[str | None, typer.Option(metavar="N", help="Beam width; default: 4.")] = None,
    allow_float: Annotated[
        bool, typer.Option(help="Take float products in a file that is otherwise quantized.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every node as a row of CSV.")] = None,
) -> None:
    """Turn the ONNX files of a recognizer into a model, and show what was understood of them."""
    from hwsim.cli.extract import Words, run_extract

    run_extract(
        Words(
            encoder, prediction, joint, decoder_joint, lm, source_lm, tuple(bind or ()), out, frames, frame_period_ms,
            labels_per_second, decoder, beam, allow_float, csv,
        )
    )  # fmt: skip


@app.command(short_help="Compare a network's integers with a reference.")
def validate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A file of hwsim.execute.store.save_executable, an ONNX file, or a catalogue network."
        ),
    ],
    inputs: Annotated[Path, typer.Option(metavar="FILE", help="Inputs by tensor name, an npz file.")],
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Codes by tensor name, an npz file; default: the readable NumPy reference."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUNTIME", help="torch, onnxruntime or litert: computes the reference."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(metavar="T0|T1|T2|T3", help="What is demanded; default: T0, T1 with --reference, T2 with torch."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="P", help="Semantics profile of the machine; default: the file's.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="free-running, teacher-forced or both; default: the tier's."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Float weights of a catalogue network, safetensors.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="P", help="Precision policy of a catalogue network, such as int4.")
    ] = None,
    bind: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="An open size of an ONNX file; repeatable.")
    ] = None,
    component: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which network of a model of hwsim extract, such as encoder.")
    ] = None,
    analog: Annotated[
        str | None,
        typer.Option(metavar="t=TIME,...", help="Run it on analog tiles so long after programming, such as t=1d."),
    ] = None,
    chips: Annotated[str | None, typer.Option(metavar="N", help="Analog chips to run; default: 1.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Devices of the analog chips; default: 0.")] = None,
    json: JsonFile = None,
) -> int:
    """Run a network on integers beside a reference, layer by layer. Exit code 1 when codes differ that must not."""
    from hwsim.cli.validate import Words, run_validate

    return run_validate(
        Words(model, inputs, reference, against, tier, profile, mode, weights, precision, tuple(bind or ()), json,
              component, analog, chips, seed)
    )  # fmt: skip


@app.command(short_help="Build the speech that a network is trained on.")
def data(
    workload: Workload,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the set.")],
    seed: Annotated[str | None, typer.Option(metavar="N", help="Random numbers; default: the workload's.")] = None,
    utterances: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many in each split; default: the workload's.")
    ] = None,
) -> None:
    """Build a set of synthetic speech with espeak-ng: audio features, transcripts, text for language models."""
    from hwsim.cli.data import run_data

    run_data(workload, out, seed, utterances)


@app.command(short_help="Train the networks of a recognizer.")
def train(
    workload: Workload,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Speech set, of hwsim data.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the checkpoints, one folder a network.")],
    precision: Annotated[
        str,
        typer.Option(metavar="P", help="fp32, fp16, int8, int4, int4-native, int4-dynamic, gq5, int4-2:4 or analog."),
    ] = "int4",
    network: Annotated[str, typer.Option(metavar="NAME", help="transducer, external_lm, source_lm or all.")] = "all",
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Of the last stage; default: the recipe's.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Random numbers; default: 0.")] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Float checkpoint to begin with; default: one is trained.")
    ] = None,
) -> None:
    """Train in float, then in low precision from there. A run that was stopped goes on where it was."""
    from hwsim.cli.train import run_train

    run_train(workload, network, precision, data, out, epochs, seed, start)


@app.command(short_help="Word error rate, real-time factor and energy of one recognizer.")
def study(
    workload: Workload,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for study.csv, study.png and what is done so far.")],
    arch: Annotated[str, typer.Option(metavar="NAME,...", help="Architectures.")] = "rapid_4core,edge_npu",
    precision: Annotated[str, typer.Option(metavar="P,...", help="Recognizers.")] = "fp16,int8,int4,gq5,int4-2:4",
    beam: Annotated[str, typer.Option(metavar="N,...", help="Beam widths; 1 is greedy search.")] = "1,2,4,8,16",
    lm: Annotated[
        str, typer.Option(metavar="NAME,...", help="none, shallow, density-ratio.")
    ] = "none,shallow,density-ratio",
    utterances: Annotated[str | None, typer.Option(metavar="N", help="The first N of the split; default: all.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Speech of `hwsim data`; default: what ships with the workload.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the speech.")] = "test_mild",
    recognizers: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Recognizers of `hwsim train`; default: what ships.")
    ] = None,
    decoder: Annotated[str, typer.Option(metavar="NAME", help="alsd, tsd or maes for beams above 1.")] = "alsd",
) -> None:
    """Decode speech in integers and time each decode: WER, RTF and energy of every point, as a table and a figure."""
    from hwsim.cli.study import Words, run_grid

    run_grid(Words(workload, out, arch, precision, beam, lm, utterances, data, split, recognizers, decoder))


@app.command(short_help="Word error rate of analog chips over time.")
def drift(
    workload: Workload,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for drift.csv, drift.png and what is done so far.")],
    arch: Annotated[
        str, typer.Option(metavar="NAME", help="Machine with analog tiles; what it puts elsewhere has no noise.")
    ] = "hybrid_analog_digital",
    versus: Annotated[str, typer.Option(metavar="NAME", help="Architecture of digital decodes.")] = "rapid_1core",
    precision: Annotated[str, typer.Option(metavar="P,...", help="Recognizers to put on chips.")] = "fp16,analog",
    digital: Annotated[str, typer.Option(metavar="P", help="Recognizer to compare them with.")] = "int4",
    noise: Annotated[
        str, typer.Option(metavar="NAME", help="Noise of the chips: rasch2023, pcm or ideal.")
    ] = "rasch2023",
    chips: Annotated[str, typer.Option(metavar="N", help="Chips, each with devices of its own.")] = "10",
    times: Annotated[str, typer.Option(metavar="T,...", help="Times since programming, such as 1h.")] = "1s,1h,1d,30d",
    seed: Annotated[str, typer.Option(metavar="N", help="Random numbers of the chips.")] = "1",
    utterances: Annotated[str | None, typer.Option(metavar="N", help="The first N of the split; default: all.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Speech of `hwsim data`; default: what ships with the workload.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the speech.")] = "test_mild",
    recognizers: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Recognizers of `hwsim train`; default: what ships.")
    ] = None,
) -> None:
    """Program recognizers on analog chips and decode as they drift: WER and energy beside a digital recognizer."""
    from hwsim.cli.drift import Words, run_chips

    run_chips(
        Words(workload, out, arch, versus, precision, digital, noise, chips, times, seed, utterances, data, split,
              recognizers)
    )  # fmt: skip


@app.command(short_help="Write down what recordings say.")
def transcribe(
    recognizer: Annotated[
        str, typer.Argument(metavar="RECOGNIZER", help="A recognizer that ships, such as digits/int4, or a file.")
    ],
    audio: Annotated[list[Path], typer.Argument(metavar="WAV...", help="Recordings, one channel in 16 bit.")],
    decoder: Annotated[str, typer.Option(metavar="NAME", help="greedy, alsd, tsd or maes.")] = "greedy",
    beam: Annotated[str | None, typer.Option(metavar="N", help="Beam width; default: 4, of greedy 1.")] = None,
    lm: Annotated[str, typer.Option(metavar="NAME", help="none, shallow or density-ratio.")] = "none",
    n_best: Annotated[str, typer.Option("--n-best", metavar="N", help="Most hypotheses that are printed.")] = "1",
    stream: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Hear pieces of this length, print the words after each.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Speech set that says what features are; default: the recognizer says it."),
    ] = None,
) -> None:
    """Decode recordings in integers, whole or as a stream, and print their words with the score of each."""
    from hwsim.cli.transcribe import Words, run_transcribe

    run_transcribe(Words(recognizer, tuple(audio), decoder, beam, lm, n_best, stream, data))
