"""How a run folder leaves the reference machine: as an archive in memory that outside is a file."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from runtime.errors import TestbedError
from testbed.machine.job import Outcome

OUTCOME = "outcome.json"
# What the results begin with: this word, the length of what follows and its sha256.
_HEADER = struct.Struct("<8sQ32s")
_MAGIC = b"TESTBED1"
_LONGEST_OUTCOME = 1 << 16


def pack(outcome: Outcome, run: Path | None, target: BinaryIO, limit_bytes: int) -> None:
    """Write the outcome and the run folder to ``target``, which takes ``limit_bytes``.

    Raises TestbedError when they are larger.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        document = msgspec.json.encode(outcome)
        entry = tarfile.TarInfo(OUTCOME)
        entry.size = len(document)
        archive.addfile(entry, io.BytesIO(document))
        if run is not None:
            archive.add(run, "run")
    body = stream.getvalue()
    if _HEADER.size + len(body) > limit_bytes:
        raise TestbedError(
            f"the run folder has {len(body) >> 20} MiB; {limit_bytes >> 20} MiB can leave the machine",
            "measure fewer trials or platforms in one run",
        )
    target.write(_HEADER.pack(_MAGIC, len(body), hashlib.sha256(body).digest()) + body)


def unpack(source: BinaryIO, folder: Path) -> Outcome | None:
    """Return the outcome that the machine has written, with the run folder as ``folder``/run; None when it has written
    none. What it wrote is not trusted: no path leaves ``folder``, and nothing but files and directories is made.

    Raises TestbedError for a damaged one.
    """
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
        return None
    _, length, digest = _HEADER.unpack(header)
    body = source.read(length)
    if len(body) != length or hashlib.sha256(body).digest() != digest:
        raise TestbedError("the reference machine's results are damaged", "run it again; report it if it stays so")
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            first = archive.next()
            document = archive.extractfile(first) if first and first.name == OUTCOME else None
            if document is None:
                raise TestbedError("the reference machine's results name no outcome", "report it")
            outcome = msgspec.json.decode(document.read(_LONGEST_OUTCOME), type=Outcome)
            for member in archive:
                if member.name != OUTCOME:
                    _extract(archive, member, folder)
    except (tarfile.TarError, msgspec.MsgspecError) as error:
        raise TestbedError(f"read the reference machine's results: {error}", "report it") from error
    return outcome


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Make a member that is a file or a directory below ``folder``; all else is left out."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise tarfile.TarError(f"{member.name!r} is not below the run folder")
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile() and (stream := archive.extractfile(member)) is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stream.read())
