"""Say how two stacks of layers differ, as overlay shows them, without mounting them.

Only directories in layers that the two do not share are read, so it takes as long as what was changed is large.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from msgspec import Struct

from runtime.unionfs.lookup import Folders, step_to_listed

_CHUNK_BYTES = 1 << 20
_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")


class Difference(Struct, frozen=True):
    """One path that differs: ``kind`` is A (only the second has it), D (only the first) or C (both, another one)."""

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


def list_differences(first: Sequence[str], second: Sequence[str]) -> Iterator[Difference]:
    """Yield how a stack of layer directories, bottom first, differs from another, in the order of paths.

    A directory is C when its owner, mode or attributes differ, not because something in it does. Raises OSError.
    """
    pending = _entries("", tuple(reversed(first)), tuple(reversed(second)))
    while pending:
        entry = pending.pop()
        if kind := _kind(entry.old, entry.new):
            yield Difference(kind, entry.path)
        # What a removed directory held went with it; what a new one holds is new.
        if entry.after and entry.before != entry.after:
            pending += _entries(entry.path, entry.before, entry.after)


class _Entry(Struct, frozen=True):
    """A path, its topmost entry in both stacks, and the directories that it merges in both."""

    path: str
    old: str | None
    new: str | None
    before: Folders
    after: Folders


def _entries(folder: str, before: Folders, after: Folders) -> list[_Entry]:
    """Return what may differ in a directory, the last name first."""
    entries = []
    for name in sorted(_names_to_compare(before, after), reverse=True):
        old, merged_old = step_to_listed(before, name)
        new, merged_new = step_to_listed(after, name)
        entries.append(_Entry(f"{folder}/{name}", old, new, merged_old, merged_new))
    return entries


def _names_to_compare(before: Folders, after: Folders) -> set[str]:
    """Return the names in the directories that are only in one of the two; below them, both show the same."""
    shared = 0
    while shared < min(len(before), len(after)) and before[-1 - shared] == after[-1 - shared]:
        shared += 1
    folders = (*before[: len(before) - shared], *after[: len(after) - shared])
    return {name for folder in folders for name in os.listdir(folder)}


def _kind(old: str | None, new: str | None) -> str:
    if old == new:
        return ""
    if old is None:
        return "A"
    if new is None:
        return "D"
    return "" if _same(old, new) else "C"


def _same(old: str, new: str) -> bool:
    one, other = os.lstat(old), os.lstat(new)
    if (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) != (other.st_mode, other.st_uid, other.st_gid, other.st_rdev):
        return False
    if _attributes(old) != _attributes(new):
        return False
    if stat.S_ISDIR(one.st_mode):
        return True
    if one.st_mtime_ns != other.st_mtime_ns:
        return False
    if stat.S_ISLNK(one.st_mode):
        return os.readlink(old) == os.readlink(new)
    return not stat.S_ISREG(one.st_mode) or (one.st_size == other.st_size and _same_content(old, new))


def _same_content(old: str, new: str) -> bool:
    """Compare two files, which a workload may change meanwhile: no link is followed and no pipe waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(old, flags), "rb") as one, open(os.open(new, flags), "rb") as other:
        while True:
            chunk = one.read(_CHUNK_BYTES)
            if chunk != other.read(_CHUNK_BYTES):
                return False
            if not chunk:
                return True


def _attributes(path: str) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {one: os.getxattr(path, one, follow_symlinks=False) for one in names if not one.startswith(_OVERLAYS_OWN)}
