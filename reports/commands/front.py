"""What ``./invoke`` executes: the task runner of the invoke library, which ends quietly when nobody reads any more.

    python -P -m reports.commands.front [ARGUMENTS OF invoke]

What a run records as its command line begins with the library's own program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.commands.library import find_version, import_library

import_library()  # before all that imports it

from invoke.parser import Parser, ParserContext  # noqa: E402
from invoke.program import Program  # noqa: E402

from reports.commands.exits import is_reader_gone, leave_reader  # noqa: E402
from reports.commands.words import arrange  # noqa: E402

# Tasks that stand together: ``union mount`` is written for what the library calls union.mount.
GROUPS = ("images", "roots", "union")


def join_group(words: Sequence[str]) -> list[str]:
    """Return a command line on which a group and its task are one word, and which asks for a task's help as the library
    wants it: before the task."""
    program, *rest = words
    before = rest[:2] if rest[:1] == ["--search-root"] else []
    rest = rest[len(before) :]
    if len(rest) > 1 and rest[0] in GROUPS and not rest[1].startswith("-"):
        rest[:2] = [f"{rest[0]}.{rest[1]}"]
        if rest[1:2] in (["--help"], ["-h"]):
            rest[:2] = ["--help", rest[0]]
    return [program, *before, *rest]


class QuietProgram(Program):
    """A program whose reader may go before all is printed, as that of ``./invoke --list | head -1``."""

    def run(self, argv: Any = None, exit: bool = True) -> None:
        """Run it as the library does, with words as people write them (``words.arrange``); a closed pipe as standard
        output ends it as it would end a program in C."""
        if argv is None:
            sys.argv[1:] = arrange(sys.argv[1:])
        try:
            try:
                super().run(join_group(sys.argv if argv is None else argv), exit)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not is_reader_gone():
                raise
            sys.exit(leave_reader())

    def _make_parser(self) -> Parser:
        """Make the parser of the tasks that the command line names: that of all fifty takes as long as a short task."""
        named = {*self.core.unparsed, self.args.help.value}
        if self.args.complete.value:
            return super()._make_parser()
        names = {name: aliases for name, aliases in self.collection.task_names.items() if named & {name, *aliases}}
        contexts = [
            ParserContext(name=name, aliases=aliases, args=self.collection[name].get_arguments())
            for name, aliases in names.items()
        ]
        return Parser(initial=self.initial_context, contexts=contexts)


if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.executable).with_name("invoke"))
    version = find_version() if {"-V", "--version"} & set(sys.argv) else ""
    QuietProgram(name="Invoke", binary="inv[oke]", binary_names=["invoke", "inv"], version=version).run()
