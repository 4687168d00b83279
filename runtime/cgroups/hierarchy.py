"""This module finds the host's cgroup controllers and their hierarchies: v1, v2, or both (hybrid)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import PrerequisiteError

# What the testbed limits or measures with. cpuacct and devices exist as controllers on v1 only.
WANTED = ("memory", "cpu", "cpuacct", "pids", "devices")
# Among the ``wanted``, it stands for the v2 mount, whatever controllers that has: programs are attached to its cgroups.
UNIFIED = "cgroup2"
REQUIRED = ("memory", "cpu", "pids")
# What an OCI configuration can set or a command of the runtime needs.
ALL = (*WANTED, "cpuset", "blkio", "io", "hugetlb", "freezer", "net_cls", "net_prio", "rdma")


class Hierarchies(Struct, frozen=True, dict=True):
    """The mount points of the cgroup hierarchies.

    ``v1`` maps controllers to mounts, ``unified`` is the v2 mount (or None) and ``v2`` holds its controllers.
    """

    v1: Mapping[str, Path]
    unified: Path | None
    v2: frozenset[str]
    wanted: tuple[str, ...] = WANTED

    @property
    def mode(self) -> str:
        """The mode is ``v2``, ``hybrid`` (v1 with a v2 mount beside it), ``v1``, or ``none``."""
        if not self.v1:
            return "v2" if self.unified else "none"
        return "hybrid" if self.unified else "v1"

    def mount_of(self, controller: str) -> Path | None:
        """Return the mount point of the hierarchy that has ``controller``, or None."""
        if controller in self.v1:
            return self.v1[controller]
        return self.unified if controller in self.v2 or controller == UNIFIED else None

    def missing(self) -> tuple[str, ...]:
        """Return the required controllers that this host does not offer."""
        return tuple(name for name in REQUIRED if self.mount_of(name) is None)

    @cached_property
    def used(self) -> tuple[Path, ...]:
        """These are the mount points of the ``wanted`` controllers, each once, beginning with the memory controller's.

        Without v1 it is always the v2 mount, because every process is in v2 regardless of its controllers.
        """
        if not self.v1:
            return (self.unified,) if self.unified else ()
        mounts = [mount for name in self.wanted if (mount := self.mount_of(name)) is not None]
        return tuple(dict.fromkeys(mounts))

    @cached_property
    def whole(self) -> Hierarchies:
        """These are the same hierarchies with all controllers wanted."""
        return replace(self, wanted=ALL)

    @cached_property
    def split(self) -> tuple[Hierarchies, Hierarchies]:
        """The split separates the first of the ``used`` hierarchies from the others."""
        first = self.used[0]
        of_first = tuple(name for name in self.wanted if self.mount_of(name) == first)
        others = tuple(name for name in self.wanted if name not in of_first)
        return replace(self, wanted=of_first), replace(self, wanted=others)


def parse(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """Return the v1 mounts by controller and the v2 mount, from the text of /proc/self/mountinfo (proc(5)).

    Named v1 hierarchies are left out.
    """
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 5 or not tail:
            continue
        mount = Path(fields[4].encode().decode("unicode_escape"))
        if tail[0] == "cgroup2" and unified is None:
            unified = mount
        elif tail[0] == "cgroup":
            for option in tail[-1].split(","):
                if option in ALL:
                    v1.setdefault(option, mount)
    return v1, unified


@cache
def hierarchies() -> Hierarchies:
    """Return the host's hierarchies, which are read only once."""
    v1, unified = parse(Path("/proc/self/mountinfo").read_text())
    v2 = frozenset((unified / "cgroup.controllers").read_text().split()) if unified else frozenset()
    return Hierarchies(MappingProxyType(v1), unified, v2)


@cache
def has_bfq() -> bool:
    """Tell whether the kernel has the BFQ scheduler, which every schedulable disk lists (block/switching-sched.rst)."""
    return any("bfq" in path.read_text() for path in Path("/sys/block").glob("*/queue/scheduler"))


def require(hierarchies: Hierarchies) -> None:
    """Raise PrerequisiteError when a controller that the limits depend on is missing."""
    if missing := hierarchies.missing():
        raise PrerequisiteError(
            f"cgroup controllers {', '.join(missing)} are not available (cgroup mode: {hierarchies.mode})",
            "mount cgroup v2 at /sys/fs/cgroup, or boot with these controllers enabled",
        )


def delegations(unified: Path, name: str, controllers: frozenset[str]) -> tuple[tuple[Path, str], ...]:
    """Return the (file, controllers) writes that enable controllers for the v2 cgroups below ``name``, from the top."""
    path = Path(name)
    delegating = [unified, *(unified / part for part in (*list(path.parents)[-2::-1], path) if str(part) != ".")]
    words = " ".join(f"+{controller}" for controller in sorted(controllers))
    return tuple((cgroup / "cgroup.subtree_control", words) for cgroup in delegating)
