"""One command line from its words to an exit code: a mistake of the user's is one line, never a stack trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from hwsim.cli.app import app
from hwsim.cli.printing import ReaderGone
from hwsim.errors import HwsimError

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

# The base of all usage mistakes; where it is defined depends on the version of typer.
_UsageMistake: type[Exception] = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Run a command line (without the program's name) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = app(args=list(arguments), prog_name="hwsim", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except HwsimError as error:
        return _complain(str(error))
    except _UsageMistake as error:
        return _complain(_usage_message(error))
    except MemoryError:
        return _complain("the simulation must fit the memory of this computer; try fewer frames or hypotheses")
    except OSError as error:
        return _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except ReaderGone:
        # What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _complain(message: str) -> int:
    print(f"hwsim: error: {' '.join(message.split())}", file=sys.stderr)
    return MISTAKE


def _usage_message(error: Exception) -> str:
    """`missing argument 'ARCH' (see hwsim simulate --help)`."""
    message = " ".join(error.format_message().split()).removesuffix(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    return f"{message[:1].lower()}{message[1:]}{hint}"
