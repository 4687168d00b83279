"""Keep compiled filters on disk: compiling an engine's profile takes as long as everything else about a container.

A file has the hash of the configuration as its name. It holds the flags and the program with their dependencies: the
library that compiled the program and the modules that called it, each with its size and time of change. If any of these
differs, the filter is compiled again.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime.config.seccomp import Seccomp
from runtime.seccomp.filter import Filter, compile_filter, is_remembered, remember

# A directory of the state's root; no container can have this name.
KEPT_FILTERS = "@filters"
MAGIC = b"TBSECC\x01\n"
_HEADER = struct.Struct("<8s3I")  # the magic, the flags, the sizes of the dependencies and of the program
_MOST = 64  # files; with more, the oldest is removed
_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("compile.py", "filter.py", "ranges.py"))


def _looks(path: str) -> str:
    status = os.stat(path)
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _library() -> str:
    """Return the path of the library that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "libseccomp" in line)


def _name(config: Seccomp) -> str:
    from hashlib import sha256

    return sha256(repr(config).encode("utf-8", "surrogatepass")).hexdigest()


def pack(compiled: Filter, rests_on: str) -> bytes:
    """Return the content of a file."""
    basis = rests_on.encode()
    return _HEADER.pack(MAGIC, compiled.flags, len(basis), len(compiled.program)) + basis + compiled.program


def unpack(data: bytes) -> Filter | None:
    """Return the filter in a file, or None if the file is torn or if this code or the library has changed since."""
    if len(data) < _HEADER.size:
        return None
    magic, flags, basis_size, program_size = _HEADER.unpack_from(data)
    if magic != MAGIC or len(data) != _HEADER.size + basis_size + program_size or program_size % 8:
        return None
    basis, program = data[_HEADER.size : _HEADER.size + basis_size], data[_HEADER.size + basis_size :]
    library, _, _ = basis.decode(errors="replace").partition("\0")
    try:
        same = basis.decode() == _basis(library)
    except (OSError, ValueError):
        return None
    return Filter(program, flags) if same else None


def _basis(library: str) -> str:
    return "\0".join(map(_looks, (library, *_SOURCES)))


class Unkept(Struct, frozen=True):
    """A filter to be kept: the ``content`` of the file at ``path``, and files that are too ``old``."""

    path: Path
    content: bytes
    old: tuple[Path, ...]


def recall(config: Seccomp | None, directory: Path) -> Unkept | None:
    """Let ``compile_filter`` return the configuration's filter from ``directory``, or compile it.

    Returns what is to be kept then. Files are trusted only if root alone can write to them. Raises as
    ``compile_filter`` does.
    """
    if config is None or os.geteuid() != 0 or is_remembered(config):
        return None
    path = directory / _name(config)
    with suppress(FileNotFoundError):
        with path.open("rb") as stream:
            kept = unpack(stream.read()) if os.fstat(stream.fileno()).st_uid == 0 else None
        if kept is not None:
            remember(config, kept)
            return None
    compiled = compile_filter(config)
    with suppress(OSError, StopIteration):  # the next call is slower, and nothing else happens
        there = sorted(directory.iterdir(), key=lambda each: each.stat().st_mtime_ns) if directory.is_dir() else []
        return Unkept(path, pack(compiled, _basis(_library())), tuple(there[: 1 - _MOST]))
    return None
