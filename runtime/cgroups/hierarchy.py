"""Which cgroup controllers this host has, and in which hierarchy: v1, v2, or both (hybrid)."""

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
REQUIRED = ("memory", "cpu", "pids")
# What an OCI configuration can set or a command of the runtime needs.
ALL = (*WANTED, "cpuset", "blkio", "io", "hugetlb", "freezer", "net_cls", "net_prio", "rdma")


class Hierarchies(Struct, frozen=True, dict=True):
    """Mount points: ``v1`` by controller, ``unified`` the v2 mount (or None) and its ``v2`` controllers."""

    v1: Mapping[str, Path]
    unified: Path | None
    v2: frozenset[str]
    wanted: tuple[str, ...] = WANTED

    @property
    def mode(self) -> str:
        """``v2``, ``hybrid`` (v1 with a v2 mount beside it), ``v1``, or ``none``."""
        if not self.v1:
            return "v2" if self.unified else "none"
        return "hybrid" if self.unified else "v1"

    def mount_of(self, controller: str) -> Path | None:
        """The mount point of the hierarchy that has ``controller``, or None."""
        if controller in self.v1:
            return self.v1[controller]
        return self.unified if controller in self.v2 else None

    def missing(self) -> tuple[str, ...]:
        """The required controllers that this host does not offer."""
        return tuple(name for name in REQUIRED if self.mount_of(name) is None)

    @cached_property
    def used(self) -> tuple[Path, ...]:
        """The mount points of the ``wanted`` controllers, each once, the memory controller's first; without v1 always
        that of v2, in which every process is whatever controllers there are."""
        if not self.v1:
            return (self.unified,) if self.unified else ()
        mounts = [mount for name in self.wanted if (mount := self.mount_of(name)) is not None]
        return tuple(dict.fromkeys(mounts))

    @cached_property
    def whole(self) -> Hierarchies:
        """The same, of which all are wanted."""
        return replace(self, wanted=ALL)

    @cached_property
    def split(self) -> tuple[Hierarchies, Hierarchies]:
        """The first of the ``used`` hierarchies alone, and the others."""
        first = self.used[0]
        of_first = tuple(name for name in self.wanted if self.mount_of(name) == first)
        others = tuple(name for name in self.wanted if name not in of_first)
        return replace(self, wanted=of_first), replace(self, wanted=others)


def parse(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """The v1 mounts by controller and the v2 mount, from /proc/self/mountinfo (proc(5)); named ones are left out."""
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
    """The host's hierarchies, read once."""
    v1, unified = parse(Path("/proc/self/mountinfo").read_text())
    v2 = frozenset((unified / "cgroup.controllers").read_text().split()) if unified else frozenset()
    return Hierarchies(MappingProxyType(v1), unified, v2)


@cache
def has_bfq() -> bool:
    """Whether the kernel has the scheduler BFQ: a disk that can be scheduled lists it (block/switching-sched.rst)."""
    return any("bfq" in path.read_text() for path in Path("/sys/block").glob("*/queue/scheduler"))


def require(hierarchies: Hierarchies) -> None:
    """Raise PrerequisiteError when a controller that limits rest on is missing."""
    if missing := hierarchies.missing():
        raise PrerequisiteError(
            f"cgroup controllers {', '.join(missing)} are not available (cgroup mode: {hierarchies.mode})",
            "mount cgroup v2 at /sys/fs/cgroup, or boot with these controllers enabled",
        )


def delegations(unified: Path, name: str, controllers: frozenset[str]) -> tuple[tuple[Path, str], ...]:
    """The (file, controllers) writes that give the cgroups below ``name`` their controllers, on v2, from the top."""
    path = Path(name)
    delegating = [unified, *(unified / part for part in (*list(path.parents)[-2::-1], path) if str(part) != ".")]
    words = " ".join(f"+{controller}" for controller in sorted(controllers))
    return tuple((cgroup / "cgroup.subtree_control", words) for cgroup in delegating)
