"""A guest that runs: what it consists of, how it is ended, and what is said when it ended or was lost by itself."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from runtime import network
from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from runtime.kernel_files import available_bytes
from runtime.speed import scale
from testbed import breakdown
from testbed.qemu import memory
from testbed.qemu.account import Account
from testbed.qemu.connection import destroy_domain
from testbed.qemu.console import Console
from testbed.qemu.disks import Disks
from testbed.qemu.port import Outcome, Port
from testbed.qemu.shares import Lending

_END_TIMEOUT_S = 5.0
# Between QEMU's start and its last answer to libvirt pass 0.3 s; this is for a host that is very busy, and multiplied
# by how slow it is.
START_LIMIT_S = 60.0
# A guest that is busy, on a host that is, may need a moment to tell of its memory or to give it back.
_MEMINFO_TIMEOUT_S = 5.0
_RECLAIM_TIMEOUT_S = 10.0


class Running(Struct, frozen=True):
    """A started guest: its libvirt domain, console and files, and when it was asked for and made.

    ``paths`` are those of its disks, ``tap`` is the name of one that was made for it, ``account`` the one that its
    QEMU runs as, ``processors`` those of the host that its own are pinned to, ``port`` the one for commands,
    ``lending`` what lends it directories of the host, ``again`` those of its services that were started again.
    """

    domain: Any
    console: Console
    cgroup: Cgroup
    folder: Path
    disks: Disks
    paths: tuple[Path, ...]
    tap: str
    ram_bytes: int
    account: Account
    requested_ns: int
    created_ns: int
    processors: tuple[int, ...] = ()
    port: Port | None = None
    lending: Lending | None = None
    again: dict[str, Outcome] = field(default_factory=dict)

    def end(self) -> None:
        """End QEMU and remove cgroup and files; each of these is tried, whatever becomes of the one before."""
        with ExitStack() as undo:  # runs in reverse
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for path in self.paths:
                undo.callback(self.disks.take_back, path)
            if self.tap:
                undo.callback(network.remove_link, self.tap)
            if self.port is not None:
                undo.callback(self.port.close)
            if self.lending is not None:
                undo.callback(self.lending.end)
            undo.callback(self.cgroup.remove)
            undo.callback(self.console.wait_for_end, scale(_END_TIMEOUT_S))
            undo.callback(destroy_domain, self.domain)
            undo.callback(self.cgroup.kill)

    def kill(self) -> None:
        """End QEMU as SIGKILL ends a process; its workload's exit status says so."""
        self.cgroup.kill()
        if self.console.wait_for_end(scale(_END_TIMEOUT_S)) and self.console.exit_status is None:
            self.console.exit_status = 128 + signal.SIGKILL

    def meminfo(self) -> str | None:
        """Return what the guest says its memory holds (proc(5), /proc/meminfo); None when it does not answer."""
        return self.console.ask_memory(scale(_MEMINFO_TIMEOUT_S))

    def reclaim(self) -> None:
        """Have the balloon take what the guest says is available, but for a reserve. WorkloadError when it does not."""
        if (meminfo := self.meminfo()) is None:
            return
        spare_bytes = available_bytes(meminfo) - memory.KEEP_BYTES
        if spare_bytes > 0:
            taken_bytes = memory.read_ballooned_bytes(self.domain, self.ram_bytes)
            memory.inflate(self.domain, self.ram_bytes - taken_bytes - spare_bytes, scale(_RECLAIM_TIMEOUT_S))

    def memory_parts(self, *, ballooned: bool) -> Mapping[str, int]:
        """Return where its memory goes, in bytes by part; ``ballooned`` when it has a balloon to ask for its size."""
        meminfo, pids = self.meminfo(), self.cgroup.pids()
        lenders = self.lending.choose(pids) if self.lending is not None else frozenset()
        return breakdown.virtual_parts(
            breakdown.read_mappings(pid for pid in pids if pid not in lenders),
            breakdown.read_charge(self.cgroup),
            self.ram_bytes,
            breakdown.parse_guest(meminfo) if meminfo else None,
            memory.read_ballooned_bytes(self.domain, self.ram_bytes) if ballooned else 0,
            breakdown.read_mappings(lenders),
        )


@contextmanager
def limit_start(cgroup: Cgroup, name: str, slowness: float) -> Iterator[None]:
    """End a QEMU that does not answer libvirt, which itself would wait for ever. Raises TestbedError then."""
    limit_s = START_LIMIT_S * slowness
    late = threading.Event()

    def end() -> None:
        late.set()
        processes = cgroup.pids()
        cgroup.kill()
        for pid in processes:  # libvirt goes on waiting for one that nobody reaps
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        yield
    except TestbedError as error:
        if late.is_set():
            message = f"start virtual machine {name}: QEMU did not answer libvirt within {limit_s:g} s"
            raise TestbedError(message) from error
        raise
    finally:
        timer.cancel()


@contextmanager
def report_refusal(name: str) -> Iterator[None]:
    """Raise what the host refuses to a machine that starts, a full disk for example, as that start's failure."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise TestbedError(f"start virtual machine {name}: {where}{error.strerror}") from error
