"""What each peer says of itself: its program, what it is started with, and what it leaves undone.

All peers start from the same (``plans``): a process of ours, in a network namespace and a mount namespace of its own,
with the image's layers mounted as one root and the instance's address on its interface, becomes the peer's program.
So bytes, address and limits are those of a container of ours, and none of these mounts and namespaces is left when
the last process has ended.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.types import Config
from runtime.plan.cgroup import join_steps, limit_steps
from runtime.plan.sharing import find_lender
from runtime.plan.steps import Exec, Step
from runtime.spec import Spec, configuration
from testbed.platforms.peers.program import Found, Program

SAME_WALLS: Mapping[str, str] = MappingProxyType({"walls": "as a container's of ours, by the peer's own words"})
NO_WALLS: Mapping[str, str] = MappingProxyType(
    {"other_walls": "none: no seccomp, all of root's capabilities, the host's processes, devices and /sys in sight"}
)


class Place(Struct, frozen=True):
    """Where one instance is started: its ``name``, unique on the host; ``folder`` for its files, which is removed at
    the end; ``shared``, a folder of all the peer's instances; ``cgroup``, the instance's: the one above those of its
    parts if it is ``split``."""

    name: str
    spec: Spec
    folder: Path
    shared: Path
    cgroup: str
    hierarchies: Hierarchies
    split: bool = True

    @property
    def root(self) -> Path:
        """Where the layers are mounted, in the mount namespace of the peer's program only."""
        return self.folder / "root"

    @property
    def entry(self) -> Path:
        """The folder of what is executed inside."""
        return self.folder / "entry"

    @property
    def lent(self) -> Path | None:
        """Where another's /dev/shm is mounted, of one that shares that; there, as the root is."""
        return self.folder / "shm" if find_lender(self.spec) else None

    @property
    def workload(self) -> str:
        """The cgroup of the workload, with its limits."""
        return self._part("workload")

    @property
    def overhead(self) -> str:
        """The cgroup of the peer's own processes: shim, monitor, supervisor."""
        return self._part("overhead")

    @property
    def ground(self) -> str:
        """The cgroup that is charged for the namespaces and mounts that all peers are given alike."""
        return self._part("ground")

    def _part(self, name: str) -> str:
        return f"{self.cgroup}/{name}" if self.split else self.cgroup

    @property
    def config(self) -> Config:
        """The workload's configuration."""
        return configuration(self.spec)


class Peer(ABC):
    """One way to start a workload that is not ours. Subclasses say which, and how.

    ``detaches``: its program ends when the workload runs. ``limits``: it makes the workload's cgroup with its limits.
    ``enters``: our launcher is executed inside it and does what it has no words for. ``stays``: it has processes of
    its own beside the workload, for which it makes a cgroup if it ``splits``. ``monitors``: of one that detaches, one
    of these stays the workload's parent, which is left to us by one that does not. ``is_seen``: the workload's first
    program is to be watched for in the root that we mount; else it is there when the program has ended or, of one
    without a program, is executed. ``said`` is what the manifest has of all its instances.
    """

    name: str
    program: Program
    detaches = False
    limits = False
    enters = False
    stays = True
    splits = False
    monitors = False
    is_seen = True
    said: Mapping[str, str] = SAME_WALLS

    @property
    def title(self) -> str:
        """How figures call it, before its version."""
        return self.name

    def check(self, found: Found) -> None:  # noqa: B027 # most need nothing else
        """Raise PrerequisiteError for what else the peer needs of the host."""

    def more_facts(self, found: Found) -> Mapping[str, object]:
        """Return what else the manifest records; called before anything is timed."""
        return {}

    def lay_out(self, place: Place) -> None:  # noqa: B027 # some are started without a file
        """Write the files that the program is started with, below the instance's folder."""

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        """Return more steps in the root, which is the working directory and held."""
        return ()

    def environment(self, place: Place) -> tuple[str, ...]:
        """Return what the program has in its environment."""
        return (f"PATH={os.environ.get('PATH', os.defpath)}", "LANG=C.UTF-8")

    @abstractmethod
    def last_steps(self, place: Place, found: Found) -> tuple[Step, ...]:
        """Return the steps with which our process becomes the peer's program, or the workload, in its cgroup."""

    def limiting_steps(self, place: Place) -> tuple[Step, ...]:
        """Return the steps that limit the workload's cgroup, where the peer does not."""
        limits = place.config.linux.resources
        if self.limits or limits is None:
            return ()
        return limit_steps(place.hierarchies, place.workload, replace(limits, devices=()))

    def ending(self, place: Place, found: Found) -> tuple[tuple[str, ...], ...]:
        """Return the commands with which the peer itself ends an instance and forgets it; what is left is killed."""
        return ()


class ProgramPeer(Peer):
    """A peer with a program, which our process becomes."""

    @abstractmethod
    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        """Return the words that start the instance."""

    def last_steps(self, place: Place, found: Found) -> tuple[Step, ...]:
        moves = join_steps(place.hierarchies, place.overhead) if self.stays and not self.splits else ()
        return (*moves, Exec(self.command(place, found), self.environment(place)))
