"""What is wrong in files of a person's: collected, so that all of it is reported at once, each with file, line, key."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UsageError

MOST_PROBLEMS = 50
SHOWN_CHARACTERS = 60


class Problems:
    """What is wrong in some files: the first mistake at a key, and none below a key that is wrong itself."""

    def __init__(self) -> None:
        self._problems: list[tuple[int, int, str]] = []
        self._files: dict[Path, int] = {}
        self._paths: set[str] = set()
        self._more = 0

    def open(self, file: Path) -> None:
        """Name a file: mistakes are reported in the order in which files were named."""
        self._files.setdefault(file, len(self._files))

    def add(self, file: Path, line: int, path: str, problem: str, expected: str = "") -> None:
        """Note a mistake at ``path``, unless it follows from one that has been noted."""
        parents = {path[:index] for index, character in enumerate(path) if character in ".["}
        if self._paths & {"", path, *parents}:
            return
        self._paths.add(path)
        if len(self._problems) == MOST_PROBLEMS:
            self._more += 1
            return
        self.open(file)
        text = f"{path or '(top level)'}: {problem}" + (f"; expected {expected}" if expected else "")
        # A key may spell what a terminal would obey.
        printable = "".join(character if character.isprintable() else "?" for character in text)
        self._problems.append((self._files[file], line, f"{file}:{line}: {printable}"))

    def check(self, hint: str = "") -> None:
        """Raise a UsageError that reports all of them, by file and line, if there are any; ``hint`` is said of all."""
        if self._problems:
            lines = [text for _, _, text in sorted(self._problems, key=lambda problem: problem[:2])]
            raise UsageError("\n".join([*lines, *([f"and {self._more} more"] if self._more else [])]), hint)


def quote(text: str) -> str:
    """Return text as a message quotes it: short, and with nothing in it that a terminal would obey."""
    return repr(cut(text))


def cut(text: str) -> str:
    """Return text, shortened to what a message shows of it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
