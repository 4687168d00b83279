"""Find out whether a directory is written to through a union: the kernel knows of overlays, our records of FUSE."""

from __future__ import annotations

import os
from errno import EBUSY, EPERM

from runtime.errors import PrerequisiteError, in_words
from runtime.unionfs.mount_api import FileSystem
from runtime.unionfs.records import Records


def is_in_use(upper: str, records: Records | None = None) -> bool:
    """Return whether an overlay, in whatever mount namespace, or a union of ours writes to ``upper``.

    Raises PrerequisiteError when overlays cannot be tried.
    """
    return _has_overlay(upper) or _has_union(os.path.realpath(upper), records or Records())


def _has_union(upper: str, records: Records) -> bool:
    def found() -> bool:
        current = [one.generation() for one in records.all() if one.current]
        return any(branch.path == upper for one in current for branch in one.union.writable)

    if not found():
        return False
    with records.locked():  # which forgets those that somebody else has unmounted
        return found()


def _has_overlay(upper: str) -> bool:
    """Return whether an overlay has ``upper``, or files of one that was unmounted are still open.

    An overlay with an index refuses an upper directory that is in use (overlayfs.rst, "Sharing and copying layers"),
    and does so before it finds that this one cannot be mounted for its work directory: so nothing is changed.
    """
    descriptor = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"/proc/self/fd/{descriptor}"
    try:
        with FileSystem.open("overlay") as overlay:
            for key, value in (("index", "on"), ("lowerdir", "/proc"), ("upperdir", name), ("workdir", name)):
                overlay.set_string(key, value)
            os.close(overlay.mount())
    except OSError as error:
        if error.errno == EPERM:
            raise PrerequisiteError(f"look whether {upper} is in use: {in_words(error)}", "run as root") from error
        return error.errno == EBUSY
    finally:
        os.close(descriptor)
    return False
