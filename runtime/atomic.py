"""This module makes files and directories that appear whole or not at all.

Until one is complete, its name begins with PARTIAL and ends with its writer's process id. From that id,
``invoke clean`` recognizes what a dead writer left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from runtime.errors import PrerequisiteError, in_words

T = TypeVar("T")
PARTIAL = ".partial-"


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` for something temporary, which is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL}{path.name}-{os.getpid()}")
    remove(temporary)
    try:
        yield temporary
    finally:
        remove(temporary)


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to build it at, which is renamed to ``path`` on success and removed on failure.

    When another process finished the same directory first, its result stays and ours is removed.
    """
    with scratch(path) as temporary:
        yield temporary
        if not (temporary.is_dir() and path.exists()):
            temporary.rename(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of the old or all of the new one, even after a kill. Raises OSError."""
    with partial(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def read_document(path: Path, kind: type[T], **more: object) -> T | None:
    """Return the JSON value of a file that was written whole, with ``more`` fields, or None when there is no file.

    Raises PrerequisiteError when it is damaged, because the disk cannot then be trusted, or when it cannot be read.
    """
    try:
        if not more:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        return msgspec.convert(msgspec.json.decode(path.read_bytes(), type=dict[str, object]) | more, kind)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise PrerequisiteError(f"read {path}: {error.strerror}", "run as root, or through sudo") from error
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        hint = "what it describes can be made again: remove it, or set TESTBED_HOME to another directory"
        raise PrerequisiteError(f"read {path}: {in_words(error)}", hint) from error


def remove(path: Path) -> None:
    """Remove a file or a whole directory, however deep; an absent one is ignored. Raises OSError."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    import shutil

    try:
        shutil.rmtree(path)
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        _remove_deep(path)


def _remove_deep(path: Path) -> None:
    """Remove a directory by lifting its subdirectories' contents into it, level by level, so that paths stay short."""
    lifted = 0
    while entries := list(os.scandir(path)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            for below in list(os.scandir(entry.path)):
                lifted += 1
                os.rename(below.path, path / f"{PARTIAL}lifted-{lifted}")
            os.rmdir(entry.path)
    os.rmdir(path)


def writer_of(path: Path) -> int:
    """Return the process id of the writer of an incomplete file or directory, or 0 for a name that has none."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
