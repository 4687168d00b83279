"""Compiled filters on disk: libseccomp takes as long for an engine's profile as a container for all the rest.

A file is named by the configuration's hash, and holds the flags and the program with what they rest on: the library
that compiled it and the modules that drove it, each with its size and time of change. All else is compiled anew.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from runtime.atomic import replace_file
from runtime.config.seccomp import Seccomp
from runtime.seccomp.filter import Filter, compile_filter, remember

# Below the state's root, where no container can be called so.
KEPT_FILTERS = "@filters"
MAGIC = b"TBSECC\x01\n"
_HEADER = struct.Struct("<8s3I")  # the magic, the flags, the sizes of what it rests on and of the program
_MOST = 64  # that are remembered; beyond, the oldest is forgotten
_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("compile.py", "filter.py", "ranges.py"))


_relied_on: set[str] = set()


def relied_on() -> frozenset[str]:
    """The files that filters rest on which this process has taken from the disk, without loading any of those files."""
    return frozenset(_relied_on)


def _looks(path: str) -> str:
    status = os.stat(path)
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _library() -> str:
    """Where the library is that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "libseccomp" in line)


def _name(config: Seccomp) -> str:
    from hashlib import sha256

    return sha256(repr(config).encode("utf-8", "surrogatepass")).hexdigest()


def pack(compiled: Filter, rests_on: str) -> bytes:
    """A file's content."""
    basis = rests_on.encode()
    return _HEADER.pack(MAGIC, compiled.flags, len(basis), len(compiled.program)) + basis + compiled.program


def unpack(data: bytes) -> tuple[Filter, str] | None:
    """The filter of a file and the library that it is of; None when it is torn, or not of this code and the library as
    it is."""
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
    return (Filter(program, flags), library) if same else None


def _basis(library: str) -> str:
    return "\0".join(map(_looks, (library, *_SOURCES)))


def recall(config: Seccomp | None, directory: Path) -> None:
    """Have ``compile_filter`` give the configuration's filter as it is kept in ``directory``, or keep it there.

    Only what root alone can write to is believed. Raises as ``compile_filter`` does.
    """
    if config is None or os.geteuid() != 0:
        return
    path = directory / _name(config)
    with suppress(FileNotFoundError):
        with path.open("rb") as stream:
            kept = unpack(stream.read()) if os.fstat(stream.fileno()).st_uid == 0 else None
        if kept is not None:
            compiled, library = kept
            remember(config, compiled)
            _relied_on.update((library, *_SOURCES))
            return
    compiled = compile_filter(config)
    with suppress(OSError, StopIteration):  # the next one is slower, and that is all
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, pack(compiled, _basis(_library())))
        for old in sorted(directory.iterdir(), key=lambda each: each.stat().st_mtime_ns)[:-_MOST]:
            old.unlink(missing_ok=True)
