"""Find a name in a stack of directories as a union of them shows it, without mounting anything.

Overlay's own notation is read: a deleted name is a character device 0/0, and a directory that hides those below it has
the attribute ``trusted.overlay.opaque`` (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TypeAlias

# The directories of the layers that appear as one, the topmost first.
Folders: TypeAlias = tuple[str, ...]

OPAQUE_XATTR = "trusted.overlay.opaque"
_PATH_LIMIT_BYTES = 4096  # PATH_MAX, include/uapi/linux/limits.h
# What stands for it in a user namespace (the mount option userxattr).
USER_OPAQUE_XATTR = "user.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether an entry of an overlay directory stands for a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: str | Path, attribute: str = OPAQUE_XATTR) -> bool:
    """Return whether a directory of an overlay layer hides the one of the same name below it."""
    return attribute in os.listxattr(directory, follow_symlinks=False)


def step(above: Folders, name: str, attribute: str = OPAQUE_XATTR) -> tuple[str | None, Folders]:
    """Return the topmost entry called ``name`` in a directory, if there is one, and the directories that it merges.

    A whiteout, a file and an opaque directory hide everything further below.
    """
    found: str | None = None
    merged: list[str] = []
    for folder in above:
        path = f"{folder}/{name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # no file system has such a name
                raise
            break
        if is_whiteout(status) or (merged and not stat.S_ISDIR(status.st_mode)):
            break
        found = found or path
        if not stat.S_ISDIR(status.st_mode):
            break
        merged.append(path)
        if is_opaque(path, attribute):
            break
    return found, tuple(merged)


def step_to_listed(above: Folders, name: str, attribute: str = OPAQUE_XATTR) -> tuple[str | None, Folders]:
    """Return what ``step`` does for a name that one of the directories lists, so that it is there or deleted.

    Raises OSError when its path is longer than a system call takes, for which ``step`` takes it to be absent.
    """
    found, merged = step(above, name, attribute)
    longest = max(above, key=lambda folder: len(os.fsencode(folder)), default="")
    if found is None and len(os.fsencode(f"{longest}/{name}")) >= _PATH_LIMIT_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), longest[:200])
    return found, merged


def find_entry(folders: Folders, path: str, attribute: str = OPAQUE_XATTR) -> str | None:
    """Return the topmost entry of a relative path without links in it, or None when the union shows none."""
    found: str | None = folders[0] if folders else None
    for name in path.split("/"):
        if name not in ("", "."):
            found, folders = step(folders, name, attribute)
    return found
