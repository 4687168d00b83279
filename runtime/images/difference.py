"""Compare two images as their containers would see them: which names one has and the other has not, and which
differ."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from runtime.images.layers import OVERLAY_XATTRS
from runtime.images.model import Layer
from runtime.images.rootfs import folders, names
from runtime.unionfs.lookup import Folders, step_to_listed

_CHUNK_BYTES = 1 << 20


class Change(Struct, frozen=True):
    """A path that differs; ``what`` says in which respect, for one that both have."""

    kind: Literal["added", "removed", "changed"]
    path: str
    what: str = ""


def differences(before: Sequence[Layer], after: Sequence[Layer]) -> Iterator[Change]:
    """Yield what the layers ``after`` show otherwise than those ``before``, both bottom first, in the order of paths.

    Where both show the same directories of the same layers, nothing is read. Raises OSError for too long a path.
    """
    pending: list[tuple[str, Folders, Folders]] = [("", folders(before), folders(after))]
    while pending:
        path, old, new = pending.pop()
        if old == new:
            continue
        below = []
        for name in sorted({*names(old), *names(new)}, key=os.fsencode):
            was, was_folders = step_to_listed(old, name)
            now, now_folders = step_to_listed(new, name)
            if was is None or now is None:
                if was is not None or now is not None:
                    yield Change("added" if was is None else "removed", f"{path}/{name}")
            elif what := _compare(was, now):
                yield Change("changed", f"{path}/{name}", what)
            if was_folders or now_folders:
                below.append((f"{path}/{name}", was_folders, now_folders))
        pending += reversed(below)


def _compare(was: str, now: str) -> str:
    """Return in which respects two entries differ, or nothing."""
    if was == now:
        return ""
    one, other = os.lstat(was), os.lstat(now)
    if stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return "kind"
    kind = stat.S_IFMT(one.st_mode)
    found = {
        "content": _has_other_content(was, now, one, other, kind),
        "mode": one.st_mode != other.st_mode,
        "owner": (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid),
        "time": one.st_mtime_ns != other.st_mtime_ns and kind != stat.S_IFDIR,
        "attributes": _attributes(was) != _attributes(now),
    }
    return ", ".join(name for name, differs in found.items() if differs)


def _has_other_content(was: str, now: str, one: os.stat_result, other: os.stat_result, kind: int) -> bool:
    if kind == stat.S_IFREG:
        return one.st_size != other.st_size or not _have_same_content(was, now)
    if kind == stat.S_IFLNK:
        return os.readlink(was) != os.readlink(now)
    return kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != other.st_rdev


def _have_same_content(was: str, now: str) -> bool:
    """Compare two files, which a container may change meanwhile: no link is followed and no pipe waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(was, flags), "rb") as one, open(os.open(now, flags), "rb") as other:
        while (chunk := one.read(_CHUNK_BYTES)) == other.read(_CHUNK_BYTES):
            if not chunk:
                return True
    return False


def _attributes(path: str) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(OVERLAY_XATTRS)
    }
