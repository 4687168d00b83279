"""The files of an archive of images, or of a directory with an image layout, by name. They come from anywhere.

An archive is looked through once, without reading what its files hold; then they are read where they lie. One that is
compressed as a whole, or comes through a pipe, is first written to the store's scratch space.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from runtime.errors import UsageError
from runtime.images import tarstream
from runtime.images.compression import decompressed, detect
from runtime.images.descriptors import DOCUMENT_LIMIT_BYTES
from runtime.images.layout import COPY_BYTES, read_chunks
from runtime.images.tarstream import TarError, TarReader
from runtime.images.unpack import Limits

# Of files in an archive: a layer has a few.
FILES_LIMIT = 200_000
_LINKS_LIMIT = 8


class Files(Protocol):
    """Files by name. Each method raises UsageError for a name that there is not."""

    what: str

    def has(self, name: str) -> bool:
        """Return whether there is a file with this name."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield what a file holds."""


def read_document(files: Files, name: str) -> bytes:
    """Return a small file. Raises UsageError for one that is too long or missing."""
    text = b""
    for chunk in files.chunks(name):
        text += chunk
        if len(text) > DOCUMENT_LIMIT_BYTES:
            raise UsageError(f"{files.what}: {name} is longer than {DOCUMENT_LIMIT_BYTES} bytes")
    return text


class Directory:
    """The files of a directory; links are not followed."""

    def __init__(self, path: Path) -> None:
        self.path, self.what = path, str(path)

    def has(self, name: str) -> bool:
        """Return whether there is a regular file with this name."""
        return ".." not in name.split("/") and (self.path / name).is_file() and not (self.path / name).is_symlink()

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield what a file holds."""
        if not self.has(name):
            raise UsageError(f"{self.what}: it has no file {name}")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return read_chunks(open(os.open(self.path / name, flags), "rb"))  # read_chunks closes it


class Tar:
    """The files of a tar, which must be a regular file that stays open meanwhile."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self.file, self.what = file, what
        self._parts, self._links = _look_through(file, what)

    def has(self, name: str) -> bool:
        """Return whether there is a file, or a link to one, with this name."""
        return self._resolve(name) is not None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield what a file holds."""
        part = self._resolve(name)
        if part is None:
            raise UsageError(f"{self.what}: it has no file {name}")
        offset, left = part
        while left:
            chunk = os.pread(self.file.fileno(), min(left, COPY_BYTES), offset)
            if not chunk:
                raise UsageError(f"{self.what}: it is cut off in {name}")
            offset += len(chunk)
            left -= len(chunk)
            yield chunk

    def _resolve(self, name: str) -> tuple[int, int] | None:
        for _ in range(_LINKS_LIMIT):
            if name in self._parts:
                return self._parts[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None


def _look_through(file: BinaryIO, what: str) -> tuple[Mapping[str, tuple[int, int]], Mapping[str, str]]:
    """Return the place and length of each file of a tar by its name, and what its links name."""
    parts: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    stream = _Seekable(file)
    try:
        for count, entry in enumerate(TarReader(stream)):
            if count >= FILES_LIMIT:
                raise TarError(f"more than {FILES_LIMIT} files")
            name = _normal(os.fsdecode(entry.name))
            if entry.kind == tarstream.FILE and entry.segments is None:
                parts[name] = (stream.position, entry.size)
            elif entry.kind == tarstream.LINK:
                links[name] = _normal(os.fsdecode(entry.target))
            elif entry.kind == tarstream.SYMLINK:
                links[name] = _normal(os.path.join(os.path.dirname(name), os.fsdecode(entry.target)))
    except TarError as error:
        raise UsageError(f"{what}: {error}") from error
    return parts, links


def _normal(name: str) -> str:
    return os.path.normpath("/" + name).lstrip("/")


class _Seekable:
    """A regular file as the source of a tar."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = os.fstat(file.fileno()).st_size
        self.position = 0

    def take(self, count: int) -> bytes:
        taken = os.pread(self._file.fileno(), count, self.position)
        self.position += len(taken)
        return taken

    def pieces(self, count: int) -> Iterator[memoryview]:
        while count:
            piece = self.take(min(count, COPY_BYTES))
            if not piece:
                raise TarError("it is cut off")
            count -= len(piece)
            yield memoryview(piece)

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self._length:
            raise TarError("it is cut off")


def open_files(source: Path | BinaryIO, scratch: Path) -> tuple[Files, BinaryIO | None]:
    """Return the files of an archive or a directory, and what the caller closes when it is done with them.

    ``source`` is a path or an open stream; ``scratch`` is a directory for a copy, if one is needed. Raises UsageError
    for what is neither, and for an archive that is damaged.
    """
    if isinstance(source, Path):
        if source.is_dir():
            return Directory(source), None
        what, stream = str(source), _open(source)
    else:
        what, stream = "standard input", source
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) or detect(_peek(stream)) != "none":
            copy = _copy(stream, scratch / "archive", what)
            stream.close()
            stream = copy
        return Tar(stream, what), stream
    except UsageError as error:
        stream.close()
        raise UsageError(error.message if what in error.message else f"{what}: {error.message}", error.hint) from error


def _open(path: Path) -> BinaryIO:
    try:
        return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise UsageError(f"read {path}: {error.strerror}") from error


def _peek(stream: BinaryIO) -> bytes:
    return os.pread(stream.fileno(), 16, 0)


def _copy(stream: BinaryIO, target: Path, what: str) -> BinaryIO:
    """Write a stream, decompressed, to a file, and return that."""
    limit = Limits().content_bytes
    length = 0
    os.set_blocking(stream.fileno(), True)
    copy = target.open("w+b")
    try:
        for chunk in decompressed(read_chunks(stream)):
            length += len(chunk)
            if length > limit:
                raise UsageError(f"{what}: it is longer than {limit} bytes")
            copy.write(chunk)
        copy.flush()
    except BaseException:
        copy.close()
        raise
    return copy
