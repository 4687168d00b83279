"""Read a path through a stack of layers as the overlay mount would show it, without mounting it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import UsageError
from runtime.images.model import Layer
from runtime.unionfs.lookup import Folders, step

# As many links as the kernel follows in one path (MAXSYMLINKS, include/linux/namei.h).
LINKS_LIMIT = 40
# Longer than any /etc/passwd in use; a longer one of an image is not read.
TEXT_LIMIT_BYTES = 4 << 20


def folders(layers: Sequence[Layer]) -> Folders:
    """Return the root directory of the image."""
    return tuple(str(layer.path) for layer in reversed(layers))


def names(above: Folders) -> set[str]:
    """Return the names that a directory which merges these may show; ``step`` says which of them it does."""
    return {name for folder in above for name in os.listdir(folder)}


def _follow(path: str, layers: Sequence[Layer]) -> tuple[str, str | None]:
    """Return ``path`` with all links followed inside the image, and its topmost version on the host, if any."""
    root = folders(layers)
    todo = list(reversed(path.split("/")))
    names: list[str] = []
    passed: list[tuple[str | None, Folders]] = [(root[0] if root else None, root)]
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del names[-1:]
            del passed[len(names) + 1 :]
            continue
        here, merged = step(passed[-1][1], name)
        if here is not None and not merged and os.path.islink(here):
            links += 1
            if links > LINKS_LIMIT:
                raise UsageError(f"{path}: more than {LINKS_LIMIT} links in the image, or a circle of them")
            target = os.readlink(here)
            if target.startswith("/"):
                names, passed = [], passed[:1]
            todo += reversed(target.split("/"))
            continue
        names.append(name)
        passed.append((here, merged))
    return "/" + "/".join(names), passed[-1][0]


def resolve(path: str, layers: Sequence[Layer]) -> str:
    """Return ``path`` with all links followed inside the image; the part that does not exist stays.

    Raises UsageError for circular links.
    """
    return _follow(path, layers)[0]


def lookup(path: str, layers: Sequence[Layer]) -> Path | None:
    """Return the path on the host of the topmost version of ``path``, following links, or None if the image has none.

    Of a directory that several layers have, this is the one whose owner and mode the overlay shows.
    """
    found = _follow(path, layers)[1]
    return None if found is None else Path(found)


def read_text(path: str, layers: Sequence[Layer]) -> str:
    """Return the text of a file in the image. It is empty if ``path`` is missing or not a file, which is not opened.

    Raises UsageError for a file above TEXT_LIMIT_BYTES, and for a path whose links do not end.
    """
    try:
        found = lookup(path, layers)
        if found is None or not stat.S_ISREG(found.lstat().st_mode):
            return ""
        with open(os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            data = file.read(TEXT_LIMIT_BYTES + 1)
    except (OSError, UsageError) as error:
        why = error.message if isinstance(error, UsageError) else error.strerror
        raise UsageError(f"read {path} of the image: {why}") from error
    if len(data) > TEXT_LIMIT_BYTES:
        raise UsageError(f"read {path} of the image: it has more than {TEXT_LIMIT_BYTES} bytes")
    return data.decode(errors="surrogateescape")


def is_directory(path: str, layers: Sequence[Layer]) -> bool:
    """Return whether ``path`` is a directory in the image, following links."""
    found = lookup(path, layers)
    return found is not None and stat.S_ISDIR(found.lstat().st_mode)


def own(path: str, tree: Path) -> Path | None:
    """Return the path on the host of ``path`` in a tree that a container made, or None, without following any link."""
    here: str | None = str(tree)
    merged: Folders = (str(tree),)
    for name in filter(None, path.split("/")):
        here, merged = step(merged, name)
    return None if here is None else Path(here)
