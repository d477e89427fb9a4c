"""`hwsim list` and `hwsim show`."""

from __future__ import annotations

from pathlib import Path

from hwsim import catalogue
from hwsim.cli.options import choice
from hwsim.cli.printing import say
from hwsim.config import read_document
from hwsim.errors import HwsimError, nearest

ARCHS, WORKLOADS, POLICIES = "arch_configs", "workloads", "workloads/policies"
KINDS = {"archs": ("Architectures", ARCHS), "workloads": ("Workloads", WORKLOADS), "policies": ("Policies", POLICIES)}
SUFFIX = ".hwsim"
# A key that only files of this catalogue have at the top.
_MARKS = {"default": POLICIES, "family": WORKLOADS, "array": ARCHS, "extends": ARCHS}


def list_catalogues(kind: str | None) -> None:
    """Print names and descriptions of one catalogue, or of all."""
    from rich.table import Table
    from rich.text import Text

    choice("list", kind, tuple(KINDS))
    for i, name in enumerate([kind] if kind else KINDS):
        title, folder = KINDS[name]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for entry in catalogue.names(folder):
            description = read_document(catalogue.find(folder, name, entry)).data.get("description", "")
            grid.add_row(f"  {entry}", " ".join(str(description).split()))
        say(Text(title if i == 0 else f"\n{title}", style="bold"), grid)


def show_entry(name: str) -> None:
    """Print an architecture, a workload, an extracted model or a policy. Raises HwsimError for a name of none."""
    if name.endswith(SUFFIX):
        from hwsim.extract import load_model
        from hwsim.report.extraction import extraction_report

        say(extraction_report(load_model(name)))
        return
    folder = _folder(name)
    from hwsim.report import describe

    if folder == ARCHS:
        from hwsim.arch import load_arch

        say(describe.describe_arch(load_arch(name)))
    elif folder == WORKLOADS:
        from hwsim.extract import load_network

        say(describe.describe_workload(load_network(name)))
    else:
        from hwsim.numerics import load_policy

        say(describe.describe_policy(load_policy(name), _policy_texts(name)))


def _folder(name: str) -> str:
    """Which catalogue a name or the content of a file belongs to."""
    for _, folder in KINDS.values():
        if name in catalogue.names(folder):
            return folder
    from hwsim.numerics.formats import BASES

    if name.split("/")[0] in BASES:
        return POLICIES
    if "/" in name or name.endswith((".yaml", ".yml")):
        document = read_document(name)
        marks = [folder for key, folder in _MARKS.items() if key in document.data]
        if not marks:
            raise HwsimError(f"{name}:1: must be an architecture, a workload or a policy, got a file of another kind")
        return marks[0]
    known = {entry for _, folder in KINDS.values() for entry in catalogue.names(folder)}
    raise HwsimError(f"unknown architecture, workload or policy '{name}'{nearest(name, known)}")


def _policy_texts(name: str) -> dict[str, str | None]:
    """Description, source and assumption of a policy's file; of a number format, what it means."""
    from hwsim.numerics.formats import BASES

    if name not in catalogue.names(POLICIES) and name.split("/")[0] in BASES:
        return {"description": "one format for the weights of every layer"}
    data = read_document(catalogue.find(POLICIES, "policy", Path(name) if "/" in name else name)).data
    texts = {key: data.get(key) for key in ("description", "source", "assumption")}
    return {key: " ".join(str(text).split()) if text else None for key, text in texts.items()}
