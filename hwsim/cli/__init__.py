"""The commands of hwsim; the only room that prints."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code: 0, 2 after a mistake of the user's, 130 when interrupted."""
    try:
        from hwsim.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
