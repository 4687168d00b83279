"""The rungs of the ladder as data: what each kept apart, from chroot in 1982 to today, and from SoftPC in 1988 to KVM.

The ladder is not monotone: a later rung may isolate less than an earlier one. So every rung says of every feature what
it had, and where that is known from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

# What the matrix has a column for.
FEATURES = (
    "processes", "root", "files", "network", "users", "capabilities", "system_calls", "devices", "limits", "kernel",
    "snapshot", "checkpoint",
)  # fmt: skip
# The classes of probes, which are also what a rung forbids or permits as a whole.
CLASSES = (
    "files", "processes", "signals", "network", "names", "time", "users", "devices", "mounts", "kernel_settings",
    "kernel_interfaces", "memory", "resources", "covert",
)  # fmt: skip
# What can be taken away from a rung on purpose, to see that the probes of that wall notice.
WALLS = (
    "root", "mount", "pid", "ipc", "uts", "network", "address", "cgroup", "user", "time", "capabilities", "seccomp",
    "landlock", "devices", "masks", "limits", "quota", "no_new_privileges", "kernel",
)  # fmt: skip

Side = Literal["containers", "machines"]
Root = Literal["host", "chroot", "pivot_root"]
Network = Literal["host", "address", "stack"]


class Cell(Struct, frozen=True):
    """What a rung had of one feature: ``had`` in a few words, ``source`` the id of where that is written, and ``today``
    how Linux of today only approximates it; empty where it is the same."""

    had: str
    source: str
    today: str = ""


class Isolation(Struct, frozen=True):
    """What a rung of the containers' side is made of, on Linux of today.

    ``namespaces`` are kinds of the OCI configuration. ``capabilities`` and ``system_calls``: "all", "none", "default"
    (a container's of ours), "tight", or for capabilities a list of names. ``devices``: the host's own, a fixed list of
    nodes, or also held by the device cgroup. ``network``: the host's, one address of the host's stack (bind(2) to any
    other is refused or changed), or a stack of its own. ``masks`` hides and write-protects what a container of ours
    does not see of /proc and /sys. ``limits`` are the resources that are limited. ``quota`` is how many MiB it may
    write to its root; 0 for no quota.
    """

    root: Root
    namespaces: tuple[str, ...] = ()
    network: Network = "host"
    capabilities: Literal["all", "default", "none"] | tuple[str, ...] = "all"
    system_calls: Literal["all", "default", "tight"] = "all"
    devices: Literal["host", "nodes", "cgroup"] = "host"
    limits: tuple[Literal["memory", "cpus", "pids"], ...] = ()
    quota: int = 0
    masks: bool = False
    no_new_privileges: bool = False
    landlock: bool = False
    read_only_sysfs: bool = False


class Statement(Struct, frozen=True):
    """What the maker of a rung said: ``of`` which classes of probes, or probes; ``source`` is the id of where that is
    written, and ``says`` what is written there, in a few words. Nothing in it comes from what a run has shown."""

    of: tuple[str, ...]
    source: str
    says: str


class Explained(Struct, frozen=True):
    """Why a finding is what is to be expected: ``why`` in a sentence, ``source`` the id of where that is written, empty
    where it is this testbed's own means that fall short of the rung."""

    why: str
    source: str = ""


class Rung(Struct, frozen=True):
    """One rung: ``name`` (``jail-2000``) is the platform's, ``title`` is for people, ``words`` one paragraph for
    someone who has never heard of it.

    A rung of containers has an ``isolation``; one of machines, or a container of today, the ``platform`` whose starts
    it stands for. One with neither is told and not run (CP-67, 1967). ``forbids`` and ``permits`` are what its maker
    said that it prevents or allows, ``leaves`` what he said is up to who runs it; a probe's own name weighs more than
    its class's. Of what none of them has, its maker did not speak. ``explains`` has the findings that are known, by
    probe: they stay findings. ``needs`` says in words what a host must have for it.
    """

    name: str
    title: str
    year: int
    side: Side
    words: str
    cells: Mapping[str, Cell]
    isolation: Isolation | None = None
    platform: str = ""
    forbids: tuple[Statement, ...] = ()
    permits: tuple[Statement, ...] = ()
    leaves: tuple[Statement, ...] = ()
    explains: Mapping[str, Explained] = field(default_factory=dict)
    needs: str = ""

    @property
    def runs(self) -> bool:
        """Whether it can be run at all."""
        return self.isolation is not None or bool(self.platform)


# How a source was looked up: all of it, or the part that counts; what a search showed of it; only that it is there, by
# its title in the references of others; or not at all.
Check = Literal["read", "quoted", "cited", "not found"]


class Source(Struct, frozen=True):
    """Where something is written: a paper, a manual page, a release note. ``checked`` is how it was looked up,
    ``where`` in which copy, and what was not found there."""

    id: str
    title: str
    authors: str
    venue: str
    year: int
    url: str = ""
    checked: Check = "not found"
    where: str = ""


class History(Struct, frozen=True):
    """All rungs, in the order of their years, and the sources by id."""

    rungs: tuple[Rung, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
