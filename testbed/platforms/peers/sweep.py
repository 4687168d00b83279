"""Cgroups that a peer makes in hierarchies by which nothing is limited or measured here, and that only it knows of."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime.cgroups import hierarchies
from runtime.lease import CGROUP_ROOT


def find_mounts(mountinfo: str) -> list[Path]:
    """Return where cgroup hierarchies are mounted, named ones too, from the text of proc(5)'s mountinfo."""
    found: dict[Path, None] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) > 4 and kinds and kinds[0] in ("cgroup", "cgroup2"):
            found[Path(fields[4].encode().decode("unicode_escape"))] = None
    return list(found)


def find_directories(name: str) -> list[Path]:
    """Return the directories of the cgroup ``name``, and of those below it, in every hierarchy; the deepest first."""
    tops = [mount / name for mount in find_mounts(Path("/proc/self/mountinfo").read_text())]
    return [Path(path) for top in tops for path, _, _ in os.walk(top, topdown=False)]


def remove_directories(name: str) -> None:
    """Remove what is left of the cgroup ``name``; one that still has processes stays."""
    for directory in find_directories(name):
        with suppress(OSError):
            directory.rmdir()


def sweep_run(run: str) -> None:
    """Remove a run's cgroup from the hierarchies that its lease does not know of."""
    leased = set(hierarchies().used)
    for mount in find_mounts(Path("/proc/self/mountinfo").read_text()):
        for directory in (mount / CGROUP_ROOT / run, mount / CGROUP_ROOT):
            if mount not in leased:
                with suppress(OSError):
                    directory.rmdir()
