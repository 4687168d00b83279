"""One named cgroup across all hierarchies of the host: its meters, and its end."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runtime.cgroups.hierarchy import WANTED, Hierarchies, hierarchies
from runtime.cgroups.limits import delegations
from runtime.errors import TestbedError


def _flat_keyed(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


@dataclass(frozen=True)
class Cgroup:
    """``name`` below each hierarchy's root, for example ``testbed/<run id>/<instance>``."""

    name: str
    found: Hierarchies = field(default_factory=hierarchies, repr=False)

    def directories(self) -> tuple[Path, ...]:
        """Its directories, one a hierarchy in use, whether they exist or not."""
        return tuple(mount / self.name for mount in self.found.used)

    def exists(self) -> bool:
        """Whether it is there; it is made in every hierarchy or in none."""
        return self.directories()[0].is_dir()

    def _file(self, controller: str, v1: str, v2: str) -> Path:
        mount = self.found.mount_of(controller)
        if mount is None:
            raise TestbedError(f"cgroup {self.name}: the host has no {controller} controller")
        return mount / self.name / (v1 if controller in self.found.v1 else v2)

    def cpu_usage_ns(self) -> int:
        """CPU time that its processes have used, in nanoseconds (v2 counts microseconds)."""
        if "cpuacct" in self.found.v1:
            return int(self._file("cpuacct", "cpuacct.usage", "").read_text())
        return _flat_keyed(self._file("cpu", "", "cpu.stat").read_text())["usage_usec"] * 1000

    def memory_bytes(self) -> int:
        """What is charged to it: anonymous memory, page cache, kernel memory."""
        return int(self._file("memory", "memory.usage_in_bytes", "memory.current").read_text())

    def memory_stat(self) -> dict[str, int]:
        """The kernel's memory.stat, names as on this host's cgroup version, in bytes."""
        return _flat_keyed(self._file("memory", "memory.stat", "memory.stat").read_text())

    def pids(self) -> tuple[int, ...]:
        """The processes in it, in any hierarchy."""
        found: set[int] = set()
        for directory in self.directories():
            with suppress(FileNotFoundError):
                found.update(int(line) for line in (directory / "cgroup.procs").read_text().split())
        found.discard(0)  # a process of another pid namespace
        return tuple(sorted(found))

    def make(self) -> None:
        """Make it, without limits; on v2 it passes the controllers down to those below it.

        Another lease's end may take an empty parent away in between: then it is tried again.
        """
        for directory in self.directories():
            while not directory.is_dir():
                with suppress(FileExistsError, FileNotFoundError):
                    directory.mkdir(parents=True)
        if self.found.unified and self.found.v2 & set(WANTED):
            for file, controllers in delegations(self.found.unified, self.name):
                file.write_text(controllers)

    def make_parent(self) -> None:
        """Make the cgroup above it, unless it is there: a lease has made its own."""
        parent = Cgroup(self.name.rpartition("/")[0], self.found)
        if not parent.exists():
            parent.make()

    def kill(self, timeout_s: float = 10.0) -> None:
        """Kill its processes and wait until none is left. Raises TestbedError when some will not die."""
        deadline = time.monotonic() + timeout_s
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # ours, and nobody else waits for it
            if time.monotonic() > deadline:
                raise TestbedError(f"cgroup {self.name}: processes {pids} did not die in {timeout_s} s")
            time.sleep(0.001)

    def remove(self, timeout_s: float = 5.0) -> None:
        """Remove its directories; absent ones are fine. The last process may need a moment to be reaped."""
        deadline = time.monotonic() + timeout_s
        for directory in self.directories():
            while True:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise TestbedError(f"remove cgroup {directory}: {error.strerror}") from error
                    time.sleep(0.001)
                else:
                    break
