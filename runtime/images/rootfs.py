"""Reading a path through a stack of layers, as the overlay mount would show it, without mounting it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from runtime.errors import UsageError
from runtime.images.layers import is_opaque, is_whiteout
from runtime.images.model import Layer

# As many links as the kernel follows in one path (MAXSYMLINKS, include/linux/namei.h).
LINKS_LIMIT = 40
# More than any /etc/passwd that people use; what an image makes longer is not read.
TEXT_LIMIT_BYTES = 4 << 20


def resolve(path: str, layers: Sequence[Layer]) -> str:
    """``path`` with every link in it followed inside the image; the part that does not exist is kept."""
    todo = [part for part in PurePosixPath(path).parts if part != "/"]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = _topmost([*done, part], layers)
        if here is not None and here.is_symlink():
            links += 1
            if links > LINKS_LIMIT:
                raise OSError(f"{path}: more than {LINKS_LIMIT} links")
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                done = []
            todo = [piece for piece in target.parts if piece != "/"] + todo
            continue
        done.append(part)
    return "/" + "/".join(done)


def lookup(path: str, layers: Sequence[Layer]) -> Path | None:
    """Where on the host the topmost version of ``path`` is, links followed; None when the image has none.

    For a directory that several layers share, it is the one whose owner and mode the overlay shows.
    """
    return _topmost([part for part in resolve(path, layers).split("/") if part], layers)


def read_text(path: str, layers: Sequence[Layer]) -> str:
    """The text of a file in the image, empty when it has none, or something else there, which is not opened.

    Raises UsageError for one above TEXT_LIMIT_BYTES, and for a path whose links do not end.
    """
    try:
        found = lookup(path, layers)
        if found is None or not stat.S_ISREG(found.lstat().st_mode):
            return ""
        with open(os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            data = file.read(TEXT_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"read {path} of the image: {error.strerror or error}") from error
    if len(data) > TEXT_LIMIT_BYTES:
        raise UsageError(f"read {path} of the image: it has more than {TEXT_LIMIT_BYTES} bytes")
    return data.decode(errors="surrogateescape")


def is_directory(path: str, layers: Sequence[Layer]) -> bool:
    """Whether ``path`` is a directory in the image, links followed."""
    found = lookup(path, layers)
    return found is not None and found.is_dir()


def _topmost(parts: Sequence[str], layers: Sequence[Layer]) -> Path | None:
    """Search from the top layer down; a whiteout or an opaque parent hides all layers further below."""
    for layer in reversed(layers):
        path, hidden = layer.path, False
        for index, part in enumerate(parts):
            path = path / part
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                break
            if is_whiteout(status):
                return None
            last = index == len(parts) - 1
            if not last and not stat.S_ISDIR(status.st_mode):
                return None
            hidden = hidden or (not last and is_opaque(path))
        else:
            return path
        if hidden:
            return None
    return None
