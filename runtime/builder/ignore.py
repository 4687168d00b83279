"""Rules of a ``.dockerignore``, which leave files out of a build context (Docker's documentation, "Build context")."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from runtime.builder.patterns import Pattern
from runtime.builder.words import SPACES
from runtime.errors import UsageError
from runtime.files import check_inside, read_bounded

NAME = ".dockerignore"
MOST_BYTES = 2**20
MOST_PATTERNS = 10_000


class Standing(Struct, frozen=True):
    """How the rules apply to a path: ``decisive`` is the last rule that matches it or a parent, or -1.

    ``open`` are later rules that may still match something below: their indices, and their states after the path.
    """

    decisive: int
    open: tuple[tuple[int, int], ...]


class Rules(Struct, frozen=True):
    """The patterns in order; ``exceptions`` tells which of them began with ``!``."""

    patterns: tuple[Pattern, ...] = ()
    exceptions: tuple[bool, ...] = ()

    def at_root(self) -> Standing:
        """Return how the rules apply to the context itself, which none of them leaves out."""
        return Standing(-1, tuple((index, pattern.start) for index, pattern in enumerate(self.patterns)))

    def at(self, folder: Standing, name: str, inside_root: bool = False) -> Standing:
        """Return how they apply to ``name`` in a folder; ``inside_root`` is true if that is the context itself."""
        decisive = folder.decisive
        still_open = []
        for index, states in folder.open:
            pattern = self.patterns[index]
            states = pattern.after(states, name if inside_root else "/" + name)
            if pattern.is_match(states):
                decisive = index
            if states:
                still_open.append((index, states))
        return Standing(decisive, tuple(entry for entry in still_open if entry[0] > decisive))

    def ignores(self, standing: Standing) -> bool:
        """Return whether the path is left out: the last rule that matches it or a parent decides."""
        return standing.decisive >= 0 and not self.exceptions[standing.decisive]

    def leaves_out(self, path: str) -> bool:
        """Return whether a path, relative to the root of the rules, is left out, by itself or with a directory."""
        standing = self.at_root()
        for index, name in enumerate(path.split("/")):
            standing = self.at(standing, name, inside_root=index == 0)
        return self.ignores(standing)

    def may_keep_below(self, standing: Standing) -> bool:
        """Return whether an exception may still match something below the path."""
        return any(self.exceptions[index] for index, _ in standing.open)


def exclusions(patterns: Iterable[str]) -> Rules:
    """Return the rules that leave out what each pattern matches, as ``--exclude`` does. Raises ValueError."""
    compiled = tuple(_pattern(pattern) for pattern in patterns)
    return Rules(compiled, (False,) * len(compiled))


def read_rules(folder: Path, dockerfile: Path | None = None) -> Rules:
    """Return the rules for a context: those beside its Dockerfile (``web.Dockerfile.dockerignore``), else the folder's.

    Without such a file there are no rules. Raises UsageError for a file that is invalid.
    """
    path = folder / NAME
    if dockerfile is not None and os.path.lexists(own := dockerfile.with_name(dockerfile.name + NAME)):
        path = own
    if not os.path.lexists(path):
        return Rules()
    check_inside(path, folder if path.is_relative_to(folder) else path.parent)
    # File names are bytes, and so are the patterns for them.
    text = os.fsdecode(read_bounded(path, MOST_BYTES).removeprefix(b"\xef\xbb\xbf"))
    if "\0" in text:
        raise UsageError(f"{path}: a NUL character: it is not text in UTF-8")
    patterns: list[Pattern] = []
    exceptions: list[bool] = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(SPACES)
        if line.startswith("#") or not stripped:
            continue
        try:
            pattern = _pattern(stripped.removeprefix("!").strip(SPACES))
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        patterns.append(pattern)
        exceptions.append(stripped.startswith("!"))
        if len(patterns) > MOST_PATTERNS:
            raise UsageError(f"{path}:{number}: more than {MOST_PATTERNS} patterns")
    return Rules(tuple(patterns), tuple(exceptions))


def _pattern(text: str) -> Pattern:
    if not text:
        raise ValueError("an exclamation mark without a pattern")
    return Pattern(os.path.normpath(text.lstrip("/") or "/"))
