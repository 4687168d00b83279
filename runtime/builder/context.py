"""The build context: the files of the host that a COPY takes, and a digest of what is copied."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runtime.builder.ignore import Rules, Standing, read_rules
from runtime.builder.patterns import WILD, Pattern, literal_folder
from runtime.errors import UsageError

_PIECE_BYTES = 1 << 16


class Entry(Struct, frozen=True):
    """One file, directory or link to copy: ``path`` on the host, ``name`` relative to its source ("" itself).

    Those of an image keep their ``owner`` (user and group) and their ``mtime_ns``; those of a context have neither.
    """

    path: Path
    name: str
    mode: int
    owner: tuple[int, int] | None = None
    mtime_ns: int = 0


class Files(Protocol):
    """Files that can be copied: those of a build context, or of an image."""

    def sources(self, pattern: str, spanning: bool = False) -> tuple[Path, ...]:
        """Return the sorted paths that a COPY source matches; there may be none for wildcards in a directory that is
        there. Raises UsageError if there is none otherwise."""

    def entries(self, source: Path) -> Iterator[Entry]:
        """Yield what copying ``source`` copies: the file that it is, or all below the directory, parents first."""

    def itself(self, source: Path) -> Entry:
        """Return the file or directory that ``source`` is, or that it links to."""

    def relative(self, source: Path) -> str:
        """Return the path of ``source`` from the root of the files on."""


class Context(Struct, frozen=True):
    """A folder that COPY may read, except for what its ``.dockerignore`` names."""

    folder: Path
    rules: Rules

    @classmethod
    def at(cls, folder: Path, dockerfile: Path | None = None) -> Context:
        """Return the context in ``folder``, with its ``.dockerignore`` or that of ``dockerfile``. Raises UsageError."""
        if not folder.is_dir():
            raise UsageError(f"build context {folder} is not a directory")
        return cls(folder.resolve(), read_rules(folder, dockerfile))

    def sources(self, pattern: str, spanning: bool = False) -> tuple[Path, ...]:
        """Return the sorted paths that a COPY source matches; ``*``, ``?`` and ``[...]`` are wildcards, and with
        ``spanning`` so is ``**`` for any number of directories.

        Raises UsageError if it names nothing or leads out of the context. Wildcards may match nothing.
        """
        relative = os.path.normpath(pattern.lstrip("/") or ".")
        if relative == ".." or relative.startswith("../"):
            raise UsageError(f"COPY {pattern}: outside the build context {self.folder}")
        try:
            if spanning and "**" in relative:
                glob = Pattern(relative)
                paths = [e.path for e in self.entries(self.folder) if glob.is_match(glob.after(glob.start, e.name))]
            else:
                paths = self._matching(relative)
        except ValueError as error:
            raise UsageError(f"COPY {pattern}: {error}") from error
        kept = tuple(path for path in paths if self._has(path, pattern))
        folder = literal_folder(relative)
        if not kept and (folder is None or not (self.folder / folder).is_dir()):
            raise UsageError(f"COPY {pattern}: no such file in the build context {self.folder}")
        return kept

    def entries(self, source: Path) -> Iterator[Entry]:
        """Yield what copying ``source`` copies: the file that it is, or all below the directory, parents first.

        Sockets are left out, because nobody listens in an image. Raises OSError for what cannot be read.
        """
        path = source.resolve()
        if path.is_dir():
            yield from self._below(path)
        else:
            yield Entry(path, "", os.lstat(path).st_mode)

    def itself(self, source: Path) -> Entry:
        """Return the file or directory that ``source`` is, or that it links to."""
        return Entry(source, "", source.stat().st_mode)

    def relative(self, source: Path) -> str:
        """Return the path of ``source`` from the context's folder on."""
        return str(source.relative_to(self.folder))

    def _matching(self, relative: str) -> list[Path]:
        """Return the sorted existing paths below the folder that match name by name. Raises ValueError."""
        paths = [self.folder]
        for name in relative.split("/"):
            if not any(wild in name for wild in WILD):
                paths = [path / name for path in paths]
                continue
            glob = Pattern(name, spanning=False)
            paths = [
                path / entry
                for path in paths
                if path.is_dir()
                for entry in sorted(os.listdir(path), key=os.fsencode)
                if glob.is_match(glob.after(glob.start, entry))
            ]
        return [path for path in paths if os.path.lexists(path)]

    def _has(self, path: Path, pattern: str) -> bool:
        """Return whether the context has ``path`` and, for a link, its target. An ignored folder needs content."""
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for circular links
            raise UsageError(f"COPY {pattern}: {path} links to nothing, or in a circle") from error
        if not real.is_relative_to(self.folder):
            raise UsageError(f"COPY {pattern}: {path} links to a place outside the build context")
        if path.is_symlink() and self.rules.ignores(self._standing(path)):
            return False
        if self.rules.ignores(self._standing(real)):
            return real.is_dir() and next(self.entries(real), None) is not None
        return not real.is_socket()

    def _standing(self, path: Path) -> Standing:
        """Return how the rules apply to a path in the folder."""
        standing = self.rules.at_root()
        for index, name in enumerate(path.relative_to(self.folder).parts):
            standing = self.rules.at(standing, name, inside_root=index == 0)
        return standing

    def _below(self, folder: Path) -> Iterator[Entry]:
        """Yield all that is kept below ``folder``, depth first, without recursion: there may be thousands of levels."""
        levels = [(_listing(folder), "", self._standing(folder), folder == self.folder)]
        # Ignored directories above the current one; each is needed as soon as an exception keeps something in it.
        waiting: list[tuple[int, Entry]] = []
        while levels:
            items, prefix, above, is_root = levels[-1]
            item = next(items, None)
            if item is None:
                levels.pop()
                if waiting and waiting[-1][0] == len(levels):
                    waiting.pop()
                continue
            mode = item.stat(follow_symlinks=False).st_mode
            standing = self.rules.at(above, item.name, is_root)
            entry = Entry(Path(item.path), prefix + item.name, mode)
            ignored = self.rules.ignores(standing)
            if not ignored and not stat.S_ISSOCK(mode):
                yield from (needed for _, needed in waiting)
                waiting.clear()
                yield entry
            if stat.S_ISDIR(mode) and (not ignored or self.rules.may_keep_below(standing)):
                if ignored:
                    waiting.append((len(levels), entry))
                levels.append((_listing(entry.path), f"{entry.name}/", standing, False))


def _listing(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        return iter(sorted(items, key=lambda item: os.fsencode(item.name)))


def attributes(path: Path) -> list[tuple[str, bytes]]:
    """Return the extended attributes that a copied file keeps: its capabilities and those below ``user.``."""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if name == "security.capability" or name.startswith("user.")
    ]


def _file_digest(path: Path) -> bytes:
    """Return the sha256 of a file's content, without the buffer of 256 KiB that hashlib.file_digest clears for each."""
    digest = hashlib.sha256()
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(file, _PIECE_BYTES):
            digest.update(piece)
    finally:
        os.close(file)
    return digest.digest()


def content_digest(entries: Sequence[Entry]) -> str:
    """Return the sha256 of names, modes, contents and attributes, and of what else an entry keeps."""
    total = hashlib.sha256()
    for entry in entries:
        kept = "" if entry.owner is None else f"{entry.owner} {entry.mtime_ns}"
        total.update(f"{entry.name}\0{entry.mode:o}\0{kept}".encode("utf-8", "surrogateescape"))
        if stat.S_ISLNK(entry.mode):
            total.update(os.fsencode(os.readlink(entry.path)))
        elif stat.S_ISREG(entry.mode):
            for attribute, value in attributes(entry.path):
                total.update(attribute.encode() + b"\0" + len(value).to_bytes(8, "big") + value)
            total.update(_file_digest(entry.path))
        elif stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
            total.update(str(os.lstat(entry.path).st_rdev).encode())
    return total.hexdigest()
