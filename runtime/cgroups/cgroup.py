"""This module makes, measures, freezes, kills and removes one named cgroup across all hierarchies of the host."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct, field

from runtime.cgroups.hierarchy import Hierarchies, delegations, hierarchies
from runtime.effects import DIRECT, Effects
from runtime.errors import TestbedError
from runtime.kernel_files import parse_flat_keyed
from runtime.speed import is_over, scale

_MOST_NAMED = 8  # of the processes that keep a cgroup from being removed


@contextmanager
def _unless_removed() -> Iterator[None]:
    """Ignore the error when the cgroup is gone.

    Others, such as systemd, may remove an empty cgroup at any moment, before a file is opened or after that.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _with_those_below(directory: Path) -> Iterator[Path]:
    """Yield a cgroup's directory and those that a container with its own cgroups has made in it, deepest first.

    Such directories are rare; the link count says whether there are any.
    """
    try:
        has_others = directory.stat().st_nlink > 2
    except FileNotFoundError:
        return
    if has_others:
        for path in [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir()]:
            yield from _with_those_below(path)
    yield directory


def _content(path: Path) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):  # the latter is that of a process which has ended
        return path.read_text().strip()
    return ""


class Throttling(Struct, frozen=True):
    """How often the quota of processor time held a cgroup back: in ``throttled`` of its ``periods``, for
    ``throttled_ns``.

    Periods count only while it wants to run and has a quota. The time is that of each processor's queue, added up: with
    two processors it can be twice what passed.
    """

    periods: int = 0
    throttled: int = 0
    throttled_ns: int = 0

    def since(self, before: Throttling) -> Throttling:
        """Return what came after an earlier reading of the same cgroup."""
        return Throttling(
            self.periods - before.periods, self.throttled - before.throttled, self.throttled_ns - before.throttled_ns
        )

    @property
    def fraction(self) -> float:
        """The part of the periods, 0 to 1, in which it was held back; 0 without a quota."""
        return self.throttled / self.periods if self.periods > 0 else 0.0


def sum_throttling(counted: Iterable[Throttling]) -> Throttling:
    """Return the sum over several cgroups."""
    whole = tuple(counted)
    return Throttling(
        sum(one.periods for one in whole), sum(one.throttled for one in whole), sum(one.throttled_ns for one in whole)
    )


class Making(Struct, frozen=True):
    """The steps that make a cgroup.

    The ``directories`` are made first, from the top. Then the texts of ``delegations`` and ``cpusets`` are written to
    their files. An unprivileged user may not write some of the ``delegations``, and need not.
    """

    directories: tuple[Path, ...]
    delegations: tuple[tuple[Path, str], ...]
    cpusets: tuple[tuple[Path, str], ...]


class Cgroup(Struct, frozen=True):
    """A cgroup that has the path ``name`` below each hierarchy's root, for example ``testbed/<run id>/<instance>``."""

    name: str
    hierarchies: Hierarchies = field(default_factory=hierarchies)

    def directories(self) -> tuple[Path, ...]:
        """Return its directories, one per hierarchy in use, whether they exist or not."""
        return tuple(mount / self.name for mount in self.hierarchies.used)

    def exists(self) -> bool:
        """Tell whether it exists. It is made either in every hierarchy or in none."""
        return os.path.isdir(f"{self.hierarchies.used[0]}/{self.name}")

    def file(self, controller: str, v1: str, v2: str) -> Path:
        """Return the path of a controller's file, whose name depends on the cgroup version.

        Raises TestbedError when the host lacks the controller.
        """
        mount = self.hierarchies.mount_of(controller)
        if mount is None:
            raise TestbedError(f"cgroup {self.name}: the host has no {controller} controller")
        return mount / self.name / (v1 if controller in self.hierarchies.v1 else v2)

    def cpu_usage_ns(self) -> int:
        """Return the CPU time that its processes have used, in nanoseconds (v2 counts in microseconds)."""
        if "cpuacct" in self.hierarchies.v1:
            return int(self.file("cpuacct", "cpuacct.usage", "").read_text())
        return parse_flat_keyed(self.file("cpu", "", "cpu.stat").read_text())["usage_usec"] * 1000

    def throttling(self) -> Throttling:
        """Return how often its quota has held it back since it was made (cpu.stat of either version).

        All counts are 0 without a quota. Raises OSError when it is gone.
        """
        counts = parse_flat_keyed(self.file("cpu", "cpu.stat", "cpu.stat").read_text())
        throttled_ns = counts.get("throttled_time", counts.get("throttled_usec", 0) * 1000)
        return Throttling(counts.get("nr_periods", 0), counts.get("nr_throttled", 0), throttled_ns)

    def memory_bytes(self) -> int:
        """Return the memory charged to it, in bytes: anonymous memory, page cache and kernel memory."""
        return int(self.file("memory", "memory.usage_in_bytes", "memory.current").read_text())

    def memory_stat(self) -> dict[str, int]:
        """Return the kernel's memory.stat, in bytes, with the names that this host's cgroup version uses."""
        return parse_flat_keyed(self.file("memory", "memory.stat", "memory.stat").read_text())

    def memory_kills(self) -> int:
        """Return how many processes the kernel has killed in it since it was made, since they had used up its memory.

        0 without the controller, and when it is gone.
        """
        if self.hierarchies.mount_of("memory") is None:
            return 0
        file = self.file("memory", "memory.oom_control", "memory.events")
        return parse_flat_keyed(_content(file)).get("oom_kill", 0)

    def pids(self) -> tuple[int, ...]:
        """Return the pids of the processes in it and in the cgroups below it, in any hierarchy."""
        found: set[int] = set()
        for directory in self.directories():
            with _unless_removed():
                for path in _with_those_below(directory):
                    found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
        found.discard(0)  # a process of another pid namespace
        return tuple(sorted(found))

    def _describe_processes(self) -> str:
        """Which processes are in it, by number and the name of their program; empty when there are none."""
        processes = self.pids()
        named = [f"{pid} ({_content(Path(f'/proc/{pid}/comm'))})" for pid in processes[:_MOST_NAMED]]
        more = [f"{len(processes) - _MOST_NAMED} more"] * (len(processes) > _MOST_NAMED)
        return f"processes in it: {', '.join(named + more)}" if processes else ""

    def plan_making(self, *, delegate: bool = True) -> Making:
        """Find the steps that are still needed to make it, without limits.

        On v2, ``delegate`` says whether it passes the controllers down to the cgroups below it.
        """
        directories = list[Path]()
        for directory in self.directories():
            missing = list[Path]()
            while not os.path.isdir(directory):
                missing.append(directory)
                directory = directory.parent
            directories += reversed(missing)
        delegated: tuple[tuple[Path, str], ...] = ()
        if self.hierarchies.unified and (controllers := self.hierarchies.v2 & set(self.hierarchies.wanted)):
            parent = self.name if delegate else self.name.rpartition("/")[0]
            delegated = delegations(self.hierarchies.unified, parent, controllers)
        cpuset = self.hierarchies.v1.get("cpuset") if "cpuset" in self.hierarchies.wanted else None
        return Making(tuple(directories), delegated, self._cpusets(cpuset) if cpuset else ())

    def _cpusets(self, directory: Path) -> tuple[tuple[Path, str], ...]:
        """Return the writes that give each new v1 cpuset its parent's processors and memory nodes, from the top.

        A new v1 cpuset has no processors, and no process can join it.
        """
        writes = list[tuple[Path, str]]()
        values = {file: _content(directory / file) for file in ("cpuset.cpus", "cpuset.mems")}
        for part in self.name.split("/"):
            directory /= part
            for file in values:
                if own := _content(directory / file):
                    values[file] = own
                else:
                    writes.append((directory / file, values[file]))
        return tuple(writes)

    def make(self, *, delegate: bool = True) -> None:
        """Make it, as ``plan_making`` says.

        The end of another lease may remove an empty parent in between; in that case it tries again.
        """
        while (making := self.plan_making(delegate=delegate)).directories:
            for directory in making.directories:
                with suppress(FileExistsError, FileNotFoundError):
                    directory.mkdir()
        for file, words in making.delegations:
            with suppress(PermissionError):  # above the delegated subtree; already done there
                file.write_text(words)
        for file, text in making.cpusets:
            file.write_text(text)

    def make_parent(self) -> None:
        """Make the cgroup above it, unless that exists already, as a lease's own cgroup does."""
        parent = Cgroup(self.name.rpartition("/")[0], self.hierarchies)
        if not parent.exists():
            parent.make()

    def freeze(self, frozen: bool = True, timeout_s: float = 5.0, by: Effects = DIRECT) -> None:
        """Freeze all its processes, or thaw them.

        Raises TestbedError when this takes longer than ``timeout_s``, when the host has no freezer, and for a root.
        """
        self._require_a_name("freeze the processes")
        if "freezer" in self.hierarchies.v1:
            file, word = self.hierarchies.v1["freezer"] / self.name / "freezer.state", "FROZEN" if frozen else "THAWED"
        elif self.hierarchies.unified:
            file, word = self.hierarchies.unified / self.name / "cgroup.freeze", str(int(frozen))
        else:
            raise TestbedError(f"freeze cgroup {self.name}: the host has no freezer")
        began_s = time.monotonic()
        by.write(file, word)
        while self.frozen() != frozen:
            if is_over(began_s, timeout_s):
                if frozen:
                    self.freeze(False, by=by)  # some may have stopped
                raise TestbedError(
                    f"freeze cgroup {self.name}: not all processes stopped within {scale(timeout_s):g} s"
                )
            time.sleep(0.001)
            by.write(file, word)

    def frozen(self) -> bool:
        """Tell whether all its processes are frozen."""
        if "freezer" in self.hierarchies.v1:
            with _unless_removed():
                return (self.hierarchies.v1["freezer"] / self.name / "freezer.state").read_text().strip() == "FROZEN"
        elif self.hierarchies.unified:
            with _unless_removed():
                return "frozen 1" in (self.hierarchies.unified / self.name / "cgroup.events").read_text()
        return False

    def _require_a_name(self, what: str) -> None:
        """Raise TestbedError for the root of the hierarchies, which has all processes of the host, and for what may be
        one: nothing of ours is there, so whoever asks has been told a wrong name."""
        parts = self.name.split("/")
        if ".." in parts or not any(part not in ("", ".") for part in parts):
            raise TestbedError(f"{what} of {self.name or '/'!r}: that is no cgroup of ours, but may be the whole host")

    def kill_at_once(self, by: Effects = DIRECT) -> bool:
        """Have the kernel kill every process, including those that are just being forked.

        Returns False where the kernel cannot do so: it takes cgroup v2 without v1, and Linux 5.14. Raises TestbedError
        for a root.
        """
        self._require_a_name("kill the processes")
        if self.hierarchies.v1 or self.hierarchies.unified is None:
            return False
        with _unless_removed():
            by.write(self.hierarchies.unified / self.name / "cgroup.kill", "1")
            return True
        return False

    def kill(self, timeout_s: float = 10.0, by: Effects = DIRECT) -> None:
        """Kill its processes and wait until none is left. Raises TestbedError when some do not die, and for a root."""
        self._require_a_name("kill the processes")
        began_s = time.monotonic()
        while pids := self.pids():
            self.kill_at_once(by)
            by.signal_all(pids, signal.SIGKILL)
            if is_over(began_s, timeout_s):
                raise TestbedError(f"cgroup {self.name}: processes {pids} did not die in {scale(timeout_s):g} s")
            time.sleep(0.001)

    def remove(self, timeout_s: float = 5.0, by: Effects = DIRECT) -> None:
        """Remove its directories and those below them; absent ones are ignored.

        It tries again for ``timeout_s``, because the last process may need a moment to be reaped. Raises TestbedError
        when it cannot be removed, and for a root.
        """
        self._require_a_name("remove the cgroups")
        began_s = time.monotonic()
        while True:
            directories = [path for directory in self.directories() for path in _with_those_below(directory)]
            try:
                by.remove_directories(directories)
            except OSError as error:
                if error.errno != errno.EBUSY or is_over(began_s, timeout_s):
                    what = f"remove cgroup {error.filename or self.name}: {error.strerror}"
                    raise TestbedError(what, self._describe_processes()) from error
                time.sleep(0.001)
            else:
                return
