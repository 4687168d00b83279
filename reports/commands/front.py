"""What ``./invoke`` executes: the task runner of the invoke library, which ends quietly when nobody reads any more.

    python -P -m reports.commands.front [ARGUMENTS OF invoke]

What a run records as its command line begins with the library's own program.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import invoke
from invoke.program import Program

from reports.commands.exits import is_reader_gone, leave_reader
from reports.commands.words import arrange


class QuietProgram(Program):
    """A program whose reader may go before all is printed, as that of ``./invoke --list | head -1``."""

    def run(self, argv: Any = None, exit: bool = True) -> None:
        """Run it as the library does, with words as people write them (``words.arrange``); a closed pipe as standard
        output ends it as it would end a program in C."""
        if argv is None:
            sys.argv[1:] = arrange(sys.argv[1:])
        try:
            try:
                super().run(argv, exit)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not is_reader_gone():
                raise
            sys.exit(leave_reader())


if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.executable).with_name("invoke"))
    QuietProgram(name="Invoke", binary="inv[oke]", binary_names=["invoke", "inv"], version=invoke.__version__).run()
