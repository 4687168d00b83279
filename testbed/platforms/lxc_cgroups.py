"""The cgroups of libvirt's containers: where libvirt has put them, and the task limit, for which it has no words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from runtime.cgroups import Cgroup, Hierarchies


def restrict_hierarchies(hierarchies: Hierarchies, controllers: tuple[str, ...]) -> Hierarchies:
    """Return the hierarchies as far as they have one of ``controllers``."""
    v1 = {name: mount for name, mount in hierarchies.v1.items() if name in controllers}
    return Hierarchies(
        v1, None if hierarchies.v1 else hierarchies.unified, hierarchies.v2 & set(controllers), controllers
    )


def find_cgroup(pid: int) -> str:
    """Return the name of the cgroup that holds ``pid``: the memory controller's on v1, that of v2 otherwise.

    Raises ProcessLookupError when it has ended: the kernel moves it to the root then, where all of the host is.
    """
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    names = {controllers: path for _, controllers, path in lines}
    of_memory = [path for controllers, path in names.items() if "memory" in controllers.split(",")]
    name = (of_memory or [names[""]])[0].strip("/")
    if not name:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(pid))
    return name


def limit_tasks(parent: Cgroup, limit: int, pid: int) -> None:
    """Hold the v2 cgroup of ``pid``, somewhere below ``parent``, to ``limit`` tasks besides those of libvirt's in it.

    libvirt passes no pids controller down. Raises OSError.
    """
    assert parent.hierarchies.unified is not None
    top, directory = parent.hierarchies.unified / parent.name, parent.hierarchies.unified / find_cgroup(pid)
    for above in reversed([path for path in directory.parents if path.is_relative_to(top)]):
        (above / "cgroup.subtree_control").write_text("+pids")
    libvirts = int((directory / "pids.current").read_text()) - 1
    (directory / "pids.max").write_text(str(limit + libvirts))
