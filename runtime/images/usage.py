"""Which layers are mounted now, in any mount namespace of the host."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from runtime.errors import UsageError

_OVERLAY = re.compile(r" - (?:overlay|fuse\S*|aufs) \S+ (\S+)$", re.MULTILINE)
_NAME = re.compile(r"(?<![0-9a-f])[0-9a-f]{26}(?![0-9a-f])")
# Of very many layers only descriptors are named, which say nothing.
_DESCRIPTORS = re.compile(r"lowerdir\+?=[0-9]+[:,]")


def mounted(names: Collection[str]) -> set[str]:
    """Return those of the layers' directory names that an overlay has mounted.

    Raises UsageError where a mount does not say which layers it has, so that none of them may be removed.
    """
    used: set[str] = set()
    for text in _mount_tables():
        for match in _OVERLAY.finditer(text):
            if _DESCRIPTORS.search(match[1]):
                what = "a container runs whose mount does not say which of very many layers it has"
                raise UsageError(f"remove layers: {what}", "wait for its end")
            used.update(_NAME.findall(match[1]))
    return used & set(names)


def _mount_tables() -> list[str]:
    """Return the mount table of each mount namespace in which a process is."""
    tables: dict[str, str] = {}
    for process in os.listdir("/proc"):
        if process.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                namespace = os.readlink(f"/proc/{process}/ns/mnt")
                if namespace not in tables:
                    tables[namespace] = Path(f"/proc/{process}/mountinfo").read_text(errors="replace")
    return list(tables.values())
