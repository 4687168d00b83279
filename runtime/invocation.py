"""What the commands share: the containers that an invocation is about, and where its words go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.errors import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def place_of(options: argparse.Namespace) -> Any:
    """The container that is named, below the state's root."""
    return places_of(options, [options.id])[0]


def places_of(options: argparse.Namespace, names: Sequence[str]) -> list[Any]:
    """The containers with these names, likewise."""
    from runtime.state import Place, default_root

    root = Path(options.root) if options.root else default_root()
    return [Place(root, name) for name in names]


def warner(options: argparse.Namespace) -> Callable[[str], None]:
    """Where warnings go: to the log, if there is one, for an engine may take our standard error for the container's."""

    def warn(text: str) -> None:
        options.warned = True
        if options.journal:
            options.journal.write("warning", text)
        else:
            say(f"warning: {text}")

    return warn


def say(text: str) -> None:
    """Print a line on standard error, without what a terminal would obey."""
    from runtime.output import printable

    print(printable(text), file=sys.stderr)


def tell_error(options: argparse.Namespace, error: Exception) -> None:
    """Print an error, and log it."""
    say(f"error: {in_words(error)}")
    if options.journal:
        options.journal.write("error", in_words(error))


def debug(options: argparse.Namespace, message: str) -> None:
    """Log, or print, what only who asked for ``--debug`` wants to know."""
    if options.debug and options.journal:
        options.journal.write("debug", message)
    elif options.debug:
        say(f"debug: {message}")
