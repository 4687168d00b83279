"""Disks of a guest's own: qcow2 files that hold what differs from a disk which all share, and their snapshots.

These work on disks that no guest is running from; for one that is, see ``testbed.qemu.snapshots``.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, TestbedError

DiskFormat = Literal["raw", "qcow2"]


def _qemu_img(what: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise PrerequisiteError(f"{what}: run qemu-img: {error.strerror}", "install qemu-utils") from error
    if done.returncode:
        output = done.stderr.strip().removeprefix("qemu-img: ")
        hint = (
            "stop the guest that runs from it first"
            if "lock" in output
            else "check that the disk is there, and free space"
        )
        raise TestbedError(f"{what}: qemu-img: {output}", hint)
    return done.stdout


def clone(
    backing: Path, backing_format: DiskFormat, target: Path, *, relative: bool = False, size_bytes: int | None = None
) -> None:
    """Make ``target``, a new disk that holds what ``backing`` holds, at the price of a table.

    From then on ``backing`` must not change. It is named by its absolute path, or ``relative`` to the directory of
    ``target``, so that both can be moved together. A guest that runs from it locks it: then its ``size_bytes`` has to
    be said, and it is not looked into. Raises TestbedError with QEMU's words.
    """
    name = os.path.relpath(backing, target.parent) if relative else str(backing.absolute())
    with partial(target) as unfinished:  # beside the target, so a relative name means the same
        what = f"clone {backing} as {target}"
        unseen = ("-u",) if size_bytes is not None else ()
        size = (str(size_bytes),) if size_bytes is not None else ()
        _qemu_img(
            what, "create", "-q", *unseen, "-f", "qcow2", "-b", name, "-F", backing_format, str(unfinished), *size
        )


def _info(disk: Path) -> list[dict[str, Any]]:
    arguments = ("info", "--output=json", "--backing-chain", str(disk))
    chain: list[dict[str, Any]] = json.loads(_qemu_img(f"look at disk {disk}", *arguments))
    return chain


def read_chain(disk: Path) -> tuple[Path, ...]:
    """Return the files that a disk is made of, itself first, the one that all share last."""
    return tuple(Path(layer["filename"]) for layer in _info(disk))


def list_snapshots(disk: Path) -> tuple[str, ...]:
    """Return the snapshots within a qcow2 disk, oldest first."""
    return tuple(snapshot["name"] for snapshot in _info(disk)[0].get("snapshots", ()))


def take_snapshot(disk: Path, name: str) -> None:
    """Save the disk's state within it as ``name``. Raises TestbedError when a guest runs from it."""
    if name in list_snapshots(disk):  # qemu-img would make a second of that name, and revert to either
        raise TestbedError(
            f"take snapshot {name} of {disk}: it has one of that name", "drop it, or choose another name"
        )
    _qemu_img(f"take snapshot {name} of {disk}", "snapshot", "-c", name, str(disk))


def revert(disk: Path, name: str) -> None:
    """Put the disk back into the state that ``name`` remembers; what was written since is lost."""
    _require(disk, name, "revert")
    _qemu_img(f"revert {disk} to snapshot {name}", "snapshot", "-a", name, str(disk))


def drop_snapshot(disk: Path, name: str) -> None:
    """Forget a snapshot; the disk's present state stays."""
    _require(disk, name, "drop")
    _qemu_img(f"drop snapshot {name} of {disk}", "snapshot", "-d", name, str(disk))


def _require(disk: Path, name: str, verb: str) -> None:
    names = list_snapshots(disk)
    if name not in names:
        raise TestbedError(f"{verb} snapshot {name} of {disk}: there is none", f"it has: {', '.join(names) or 'none'}")
