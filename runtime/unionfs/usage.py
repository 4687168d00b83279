"""Ask the kernel whether an overlay has a directory as its upper one, in whatever mount namespace."""

from __future__ import annotations

import os
from errno import EBUSY, EPERM

from runtime.errors import PrerequisiteError, in_words
from runtime.unionfs.mount_api import FileSystem


def is_in_use(upper: str) -> bool:
    """Return whether an overlay writes to ``upper``, or files of one that was unmounted are still open.

    An overlay with an index refuses an upper directory that is in use (overlayfs.rst, "Sharing and copying layers"),
    and does so before it finds that this one cannot be mounted for its work directory: so nothing is changed. Raises
    PrerequisiteError when overlays cannot be tried.
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
