"""Files and directories of the store that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A path beside ``path`` for something temporary, removed at the end.

    The name ends with our process id, from which ``invoke clean`` tells a dead writer's remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}-{os.getpid()}")
    _remove(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to build it at; renamed to ``path`` on success, removed on failure.

    When another process finished the same directory first, its result stays and ours is removed.
    """
    with scratch(path) as temporary:
        yield temporary
        if not (temporary.is_dir() and path.exists()):
            temporary.rename(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
