"""What a test itself left on a host that others use meanwhile: the other stream of tests, and whoever else is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import leftovers
from tests.waiting import until

# The longest that another test takes from killing a run to having it cleaned up.
_OTHERS_S = 120.0


def mounts_of(*names: str | Path) -> list[str]:
    """The lines of this process's mountinfo that have one of the names in them: a test's folder, a run's id."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if any(str(name) in line for name in names)]


def own_mounts() -> bool:
    """Whether only the tests mount anything here: the mount namespace is not that of the host's first process."""
    try:
        return os.readlink("/proc/self/ns/mnt") != os.readlink("/proc/1/ns/mnt")
    except OSError:
        return False


def files_of(name: str, directory: Path, depth: int = 3) -> list[str]:
    """The files and directories with a name in theirs, at most ``depth`` levels below a directory; what goes away
    meanwhile is somebody else's."""
    found = []
    for path, directories, files in os.walk(directory):
        found += [f"{path}/{one}" for one in (*directories, *files) if name in one]
        if len(Path(path).relative_to(directory).parts) + 1 >= depth:
            directories.clear()
    return found


@contextmanager
def no_dead_run_left() -> Iterator[None]:
    """Raises AssertionError when more of dead runs is left at the end than was before. What another test's run, killed
    meanwhile, has left is waited for: it goes when that test ends, what this test left does not."""
    before = set(leftovers.find())
    yield
    until(lambda: set(leftovers.find()) <= before, _OTHERS_S, lambda: set(leftovers.find()) - before)
