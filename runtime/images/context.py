"""The build context: which files of the host a COPY takes, and a digest of them."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from msgspec import Struct

from runtime.errors import UsageError
from runtime.images.layers import walk


class Entry(Struct, frozen=True):
    """One file, directory or link to copy: ``path`` on the host, ``name`` relative to its source ("" itself)."""

    path: Path
    name: str
    mode: int


class Context(Struct, frozen=True):
    """A folder that COPY may read, less what its ``.dockerignore`` names."""

    folder: Path
    ignored: tuple[str, ...] = ()

    @classmethod
    def at(cls, folder: Path) -> Context:
        """The context in ``folder``, with its ``.dockerignore`` if it has one."""
        if not folder.is_dir():
            raise UsageError(f"build context {folder} is not a directory")
        ignore = folder / ".dockerignore"
        lines = ignore.read_text().splitlines() if ignore.is_file() else []
        return cls(folder.resolve(), tuple(line.strip() for line in lines if line.strip() and line[0] != "#"))

    def sources(self, pattern: str) -> tuple[Path, ...]:
        """The paths that a COPY source means, sorted; ``*``, ``?`` and ``[...]`` are wild cards.

        Raises UsageError when it matches nothing, or leads out of the context.
        """
        relative = os.path.normpath(pattern.lstrip("/") or ".")
        if relative == ".." or relative.startswith("../"):
            raise UsageError(f"COPY {pattern}: outside the build context {self.folder}")
        found = [self.folder / name for name in sorted(glob.glob(relative, root_dir=self.folder, include_hidden=True))]
        kept = tuple(path for path in found if path.is_dir() or not self.ignores(self._relative(path)))
        if not kept:
            raise UsageError(f"COPY {pattern}: no such file in the build context {self.folder}")
        for path in kept:
            try:
                real = path.resolve()
            except RuntimeError as error:  # Python before 3.13
                raise UsageError(f"COPY {pattern}: {path} is a link in a circle") from error
            if not real.is_relative_to(self.folder):
                raise UsageError(f"COPY {pattern}: {path} links to a place outside the build context")
        return kept

    def entries(self, source: Path) -> Iterator[Entry]:
        """What copying ``source`` copies: itself first when it is a file, else all below it, parents first."""
        path = source.resolve()
        if not path.is_dir():
            yield Entry(path, "", os.lstat(path).st_mode)
            return
        kept: list[Entry] = []
        needed: set[str] = set()  # an ignored directory is, when an exception (!pattern) keeps something in it
        for name, status in reversed(list(walk(path))):
            if name in needed or not self.ignores(self._relative(path / name)):
                kept.append(Entry(path / name, name, status.st_mode))
                needed.add(name.rpartition("/")[0])
        yield from reversed(kept)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def ignores(self, name: str) -> bool:
        """Whether ``.dockerignore`` leaves out ``name``: the last pattern that matches it or a parent decides."""
        ignored = False
        for line in self.ignored:
            negated = line.startswith("!")
            pattern = os.path.normpath(line.removeprefix("!").lstrip("/"))
            if any(_matches(pattern, str(part)) for part in (PurePosixPath(name), *PurePosixPath(name).parents)):
                ignored = not negated
        return ignored


def attributes(path: Path) -> list[tuple[str, bytes]]:
    """The extended attributes that a copied file keeps: what it may do when it is executed, and a user's own."""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if name == "security.capability" or name.startswith("user.")
    ]


def content_digest(entries: Sequence[Entry]) -> str:
    """sha256 over names, modes, contents and attributes, which is all of a context's files that an image keeps."""
    total = hashlib.sha256()
    for entry in entries:
        total.update(f"{entry.name}\0{entry.mode:o}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISLNK(entry.mode):
            total.update(os.fsencode(os.readlink(entry.path)))
        elif stat.S_ISREG(entry.mode):
            for attribute, value in attributes(entry.path):
                total.update(attribute.encode() + b"\0" + len(value).to_bytes(8, "big") + value)
            with open(entry.path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _matches(pattern: str, name: str) -> bool:
    """Whether a ``.dockerignore`` pattern matches: ``*`` stays within a name, ``**`` spans directories."""
    expression, index = "", 0
    while index < len(pattern):
        if pattern.startswith("**/", index):
            expression, index = expression + "(?:.*/)?", index + 3
        elif pattern.startswith("**", index):
            expression, index = expression + ".*", index + 2
        else:
            character = pattern[index]
            expression += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
            index += 1
    return re.fullmatch(expression, name) is not None
