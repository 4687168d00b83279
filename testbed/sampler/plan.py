"""Decides what is sampled: which of the kernel's files, how often, and how much of a processor each kind may take.

The same files are read for a container and for a machine, whose QEMU is in a cgroup, too. CPU time comes first and
oftest; what costs more or says less is read more seldom. All of it may take one hundredth of a processor: a few
instances come nowhere near that, and with 500 it decides how often a file is read (``benchmarks/sampler.py`` measures
it; the samples say when each was).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from runtime.cgroups import Cgroup
from runtime.cgroups.hierarchy import Hierarchies

PROC = Path("/proc")
HOST = "host"
INTERVAL_S = 0.1
# Once a second.
SELDOM = 10

# The part of a processor, in millionths, that sampling may take, and each group's part of that when all want more. A
# hundredth is what it is to keep below; the rest is for the rounds themselves.
LIMIT = 9_500
BUDGETS = {
    "cpu": 5500, "host": 500, "memory": 1500, "throttling": 250, "io": 400, "pressure": 250, "network": 250, "pss": 600,
}  # fmt: skip

# Of interfaces; others could be taken for what has a meaning in a key.
_NAME = re.compile(r"[\w.-]+")
_STALLS = ("cpu", "memory", "io")


class Target(Struct, frozen=True):
    """What is sampled under a name: a cgroup, and the host's ends of its network interfaces.

    Its processes are asked one by one, for what their cgroup does not tell, if ``each`` is true: not where there may be
    thousands that fork.
    """

    cgroup: Cgroup
    interfaces: tuple[str, ...] = ()
    each: bool = True


class Column(Struct, frozen=True):
    """Where a number of a file goes: whose it is, what it is called, and what it is multiplied by."""

    owner: str
    name: str
    factor: int = 1


class Source(Struct, frozen=True):
    """A file, how its numbers are found (``sampler.c`` says how), and the column of each."""

    kind: Literal["number", "keys", "long", "each smaps_rollup", "each io"]
    path: Path
    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()


class Group(Struct, frozen=True):
    """Files that are read every so many ticks, within a budget in millionths of a processor."""

    name: str
    every: int
    sources: tuple[Source, ...]

    @property
    def is_slow(self) -> bool:
        """Whether it asks for each process, so that it is left out of the first reading of all."""
        return any(source.kind.startswith("each ") for source in self.sources)

    @property
    def budget(self) -> int:
        """What its files may take together when all groups want more than there is, in millionths of a processor."""
        return BUDGETS[self.name]


def plan_sampling(targets: Mapping[str, Target], hierarchies: Hierarchies, netdev: str = "") -> tuple[Group, ...]:
    """Return the groups of files, in the order in which they are read at a tick; ``netdev`` is /proc/net/dev, whose
    order keys should have. Groups without a file are left out."""
    groups = [
        Group("cpu", 1, tuple(_cpu(name, one.cgroup) for name, one in targets.items())),
        Group("host", 1, plan_host()),
        Group("memory", 1, tuple(_memory(name, one.cgroup) for name, one in targets.items())),
        Group("throttling", SELDOM, _throttling(targets, hierarchies)),
        Group("io", SELDOM, _io(targets, hierarchies)),
        Group("pressure", SELDOM, _pressure(targets, hierarchies)),
        Group("network", SELDOM, plan_network({name: one.interfaces for name, one in targets.items()}, netdev)),
        Group("pss", SELDOM, tuple(_pss(name, one.cgroup) for name, one in targets.items() if one.each)),
    ]
    return tuple(group for group in groups if group.sources)


def _cpu(owner: str, cgroup: Cgroup) -> Source:
    """Return the CPU time: on v2 in a file that has the throttling, too."""
    if "cpuacct" in cgroup.hierarchies.v1:
        return Source("number", cgroup.file("cpuacct", "cpuacct.usage", ""), (Column(owner, "cpu_ns"),))
    columns = (Column(owner, "cpu_ns", 1000), *_held_back(owner, 1000))
    keys = ("usage_usec ", "nr_periods ", "nr_throttled ", "throttled_usec ")
    return Source("keys", cgroup.file("cpu", "", "cpu.stat"), columns, keys)


def _held_back(owner: str, factor: int) -> tuple[Column, ...]:
    return (Column(owner, "nr_periods"), Column(owner, "nr_throttled"), Column(owner, "throttled_ns", factor))


def _memory(owner: str, cgroup: Cgroup) -> Source:
    path = cgroup.file("memory", "memory.usage_in_bytes", "memory.current")
    return Source("number", path, (Column(owner, "cgroup_bytes"),))


def _throttling(targets: Mapping[str, Target], hierarchies: Hierarchies) -> tuple[Source, ...]:
    if "cpuacct" not in hierarchies.v1:
        return ()
    keys = ("nr_periods ", "nr_throttled ", "throttled_time ")
    return tuple(
        Source("keys", one.cgroup.file("cpu", "cpu.stat", "cpu.stat"), _held_back(name, 1), keys)
        for name, one in targets.items()
    )


def _io(targets: Mapping[str, Target], hierarchies: Hierarchies) -> tuple[Source, ...]:
    """Return the bytes read from block devices and written to them: from the cgroups, if all of them are counted.

    Else from their processes, with those that these have waited for (proc(5), /proc/pid/io): a write counts when it
    makes a page dirty then, and not when that is written back.
    """
    counting = hierarchies.mount_of("blkio") or hierarchies.mount_of("io")
    name, keys = "io.stat", ("rbytes=+", "wbytes=+")
    if hierarchies.mount_of("blkio"):
        name, keys = "blkio.throttle.io_service_bytes_recursive", ("Read +", "Write +")
    files = {owner: counting / one.cgroup.name / name for owner, one in targets.items()} if counting else {}
    if files and all(path.exists() for path in files.values()):
        return tuple(Source("keys", path, _transferred(owner), keys) for owner, path in files.items())
    return tuple(
        Source("each io", _directory(one.cgroup), _transferred(owner), ("read_bytes: ", "write_bytes: "))
        for owner, one in targets.items()
        if one.each
    )


def _transferred(owner: str) -> tuple[Column, ...]:
    return (Column(owner, "read_bytes"), Column(owner, "written_bytes"))


def _directory(cgroup: Cgroup) -> Path:
    """Return a directory that lists the cgroup's processes."""
    return cgroup.hierarchies.used[0] / cgroup.name


def _pressure(targets: Mapping[str, Target], hierarchies: Hierarchies) -> tuple[Source, ...]:
    """Return what processes waited for; of a cgroup only v2 tells (Documentation/accounting/psi.rst)."""
    if hierarchies.v1 or hierarchies.unified is None:
        return ()
    return tuple(
        source
        for name, one in targets.items()
        for source in plan_stalls(name, hierarchies.unified / one.cgroup.name, "{}.pressure")
    )


def plan_stalls(owner: str, directory: Path, pattern: str) -> tuple[Source, ...]:
    """Return the files of pressure in a directory: microseconds in which some, or all, waited for a resource."""
    return tuple(
        Source(
            "keys",
            directory / pattern.format(name),
            (Column(owner, f"{name}_some_us"), Column(owner, f"{name}_full_us")),
            ("some|total=", "full|total="),
        )
        for name in _STALLS
    )


def _pss(owner: str, cgroup: Cgroup) -> Source:
    return Source("each smaps_rollup", _directory(cgroup), (Column(owner, "pss_bytes", 1024),), ("Pss:",))


def plan_host() -> tuple[Source, ...]:
    """Return the host's files: ticks of its processors, what memory is left, and pressure."""
    ticks = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    return (
        Source(
            "keys",
            PROC / "stat",
            tuple(Column(HOST, f"{name}_ticks") for name in ticks),
            tuple(f"cpu @{index}" for index in range(len(ticks))),
        ),
        Source("keys", PROC / "meminfo", (Column(HOST, "available_bytes", 1024),), ("MemAvailable:",)),
        *plan_stalls(HOST, PROC / "pressure", "{}"),
    )


def plan_network(interfaces: Mapping[str, Sequence[str]], netdev: str) -> tuple[Source, ...]:
    """Return the counters of interfaces, all in one file (/proc/net/dev), by those who have them.

    What the host's end of a pair has received the instance has sent. Of several interfaces a column is the sum.
    """
    owners = {interface: owner for owner, names in interfaces.items() for interface in names}
    listed = [line.partition(":")[0].strip() for line in netdev.splitlines()]
    known = [interface for interface in listed if interface in owners and _NAME.fullmatch(interface)]
    if not known:
        return ()
    columns = tuple(Column(owners[interface], name) for interface in known for name in ("sent_bytes", "received_bytes"))
    keys = tuple(f"{interface}:{field}" for interface in known for field in ("", "@8"))
    return (Source("long", PROC / "net/dev", columns, keys),)


def describe_groups(groups: Sequence[Group], interval_s: float, limited: bool = True) -> str:
    """Return the lines that tell the program (``sampler.c``) what to do; sources have numbers in their order. Without
    limits no group has a budget."""
    lines = [f"interval {round(interval_s * 1e9)}", f"limit {LIMIT}"]
    for group in groups:
        lines.append(f"group {group.every} {group.budget if limited else 0}")
        lines += ["\t".join((f"{source.kind} {source.path}", *source.keys)) for source in group.sources]
    return "\n".join(lines) + "\n"
