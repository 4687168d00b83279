"""One guest's console: its log, its last lines, and the phases that its lines show."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from runtime.output import BoundedLog, shortened
from vm_images.plans.guest import EXECUTING, FIRST_USERSPACE, MEMORY_END, POOLED
from vm_images.plans.restored import ASLEEP, IDENTIFIED
from vm_images.plans.unit import EXITED

_MARKS = {
    "kernel_entry": "Linux version ",
    "first_userspace": FIRST_USERSPACE,
    "pooled": POOLED,
    "first_process": EXECUTING,
    "asleep": ASLEEP,
    "identity": IDENTIFIED,
    # What a stock system says of itself: SeaBIOS, GRUB, the initial RAM disk's script, systemd, cloud-init's stages.
    "firmware": "SeaBIOS (version ",
    "boot_loader": "GRUB loading",
    "initial_ramdisk": "Loading, please wait...",
    "init": "systemd[1]: ",
    "cloud_local": "running 'init-local' at",
    "cloud_network": "running 'init' at",
    "cloud_config": "running 'modules:config' at",
    "cloud_final": "running 'modules:final' at",
}
# What a guest with several services reports of one of them, at the beginning of a line; what a container in a guest
# writes comes after its name.
_SERVICE = re.compile(r"testbed: ([^:\s]+): (created|exec|ended: \d+|failed: .*)$")
_SERVICE_PHASES = {"created": "container_created", "exec": "first_process"}
# One of several in the guest has ended, and the others go on, or it takes them with it.
_LEFT = re.compile(r"testbed: ([^:\s]+): (?:left|ended): (\d{1,3})$")
# What the guest's kernel says at the beginning of a line (Linux, mm/oom_kill.c). No container can: its lines begin with
# its name.
_KILLED = re.compile(r"\[ *\d+\.\d+\] (?:Memory cgroup out|Out) of memory: Killed process \d+ \((.{1,15}?)\) ")
_STEP_FAILED = re.compile(r"testbed: (?:step -?\d|/plan).*")
_INIT_ENDED = re.compile(r"Attempted to kill init! exitcode=0x([0-9a-f]{8})")
_MEMORY = re.compile(r"[A-Za-z0-9_()]{1,64}: +\d{1,18}(?: kB)?")
KERNEL_PANIC = "Kernel panic - not syncing"
_EXITED = re.compile(rf"{EXITED}(\d{{1,3}})\b")
_TAIL_LINES = 40
# A guest decides what it writes: longer lines are cut into several, and what is stored of them has a limit.
_LINE_BYTES = 4096
_PHASES_LIMIT = 1024
_MEMORY_LINES_LIMIT = 256
_NAMES_LIMIT = 64
# After this much of a console its lines are only looked at one by one where one of them may say something.
_STAMPED_BYTES, _STAMPED_LINES = 1 << 20, 20_000
_ENDS = ("testbed: ", KERNEL_PANIC, "Attempted to kill init!", EXITED, ": Killed process ")
_TELLING = re.compile("|".join(map(re.escape, (*_MARKS.values(), *_ENDS))).encode())


def parse_phase(line: str) -> str | None:
    """Return the phase that a console line shows to be reached, if any; that of a single service is
    ``service.phase``."""
    if (match := _SERVICE.match(line)) is not None:
        phase = _SERVICE_PHASES.get(match[2])
        return f"{match[1]}.{phase}" if phase else None
    return next((phase for phase, mark in _MARKS.items() if mark in line), None)


def parse_exit_status(line: str) -> int | None:
    """Return the workload's status, 128 + n for signal n.

    Where it was PID 1, from the kernel's panic line (wait(2) encoding); where it was a unit, from what that says last.
    """
    if (match := _EXITED.search(line)) is not None:
        return int(match.group(1))
    if (panic := _INIT_ENDED.search(line)) is None:
        return None
    status = int(panic.group(1), 16)
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


class Console:
    """One guest's console: its ``phases`` as they are reached, and its last lines.

    Log lines are ``[seconds of CLOCK_MONOTONIC] text``; those of a console that is flooded have no time. The reader's
    thread feeds it, any thread may wait. ``send`` is how to write to the guest, once it is connected. ``left`` has the
    exit statuses of services and tenants that have ended, of several in the guest, ``killed`` how many processes of a
    name the guest's kernel has killed for want of memory. ``hypervisor`` is what the program is called whose end is
    the guest's.
    """

    def __init__(self, log: BoundedLog, hypervisor: str = "QEMU") -> None:
        self._log = log
        self._hypervisor = hypervisor
        self._unwritten: list[bytes] = []
        self._read_bytes = self._read_lines = 0
        self._pending = b""
        self._changed = threading.Condition()
        self._phases: dict[str, int] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ended = False
        self.panic = ""
        self._step_failed = False
        self._asked = False
        self._memory: list[str] = []
        self._answer: str | None = None
        self.send: Callable[[bytes], object] | None = None
        self.failure = ""
        self.log_failure = ""
        self.emulator_status: int | None = None
        self.exit_status: int | None = None
        self.left: dict[str, int] = {}
        self.killed: dict[str, int] = {}

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take what arrived at ``now_ns``; empty data is the end of the console."""
        with self._changed:
            self._read_bytes += len(data)
            whole = self._pending + data
            if self._is_flooded() and not self._asked and not _TELLING.search(whole):
                self._skim(whole)
            else:
                *lines, self._pending = whole.split(b"\n")
                self._read_lines += len(lines)
                for line in lines:
                    self._take(line, now_ns)
            while len(self._pending) > _LINE_BYTES:
                self._take(self._pending[:_LINE_BYTES], now_ns)
                self._pending = self._pending[_LINE_BYTES:]
            if not data and self._pending:
                self._take(self._pending, now_ns)
                self._pending = b""
            self._ended = self._ended or not data
            self._flush(last=not data)
            self._changed.notify_all()

    def add(self, lines: Iterable[bytes]) -> None:
        """Take whole lines of the guest's that came another way."""
        with self._changed:
            for line in lines:
                self._take(line, time.monotonic_ns())
            self._flush(last=False)
            self._changed.notify_all()

    def _is_flooded(self) -> bool:
        return self._read_bytes > _STAMPED_BYTES or self._read_lines > _STAMPED_LINES

    def _skim(self, whole: bytes) -> None:
        """Take lines that tell nothing, many at once."""
        end = whole.rfind(b"\n") + 1 or max(0, len(whole) - _LINE_BYTES)  # a mark may lack its end still
        self._pending = whole[end:]
        self._unwritten.append(whole[:end])
        if end and not self.panic:
            last = whole[:end].removesuffix(b"\n").rsplit(b"\n", _TAIL_LINES)[-_TAIL_LINES:]
            self._tail.extend(line[-_LINE_BYTES:].decode(errors="replace") for line in last)

    def _flush(self, last: bool) -> None:
        """Write what was logged; a full disk loses it, which is said, while the guest goes on."""
        text, self._unwritten = b"".join(self._unwritten), []
        if self._log.closed:
            return
        try:
            self._log.write(text)
        except OSError as error:
            self.log_failure = f"write the log {self._log.path}: {error.strerror}"
        if last or self.log_failure:
            with suppress(OSError):  # what could not be written, again
                self._log.close()

    def _take(self, data: bytes, now_ns: int) -> None:
        line = data.decode(errors="replace").rstrip("\r")
        if self._asked and self._is_answer(line):
            return
        self._unwritten.append(f"[{now_ns / 1e9:.6f}] {line}\n".encode())
        if not self.panic and KERNEL_PANIC in line:
            self.panic = shortened(line[line.index(KERNEL_PANIC) :])
        if not self.panic:  # the registers that a panic prints say nothing of the workload
            self._tail.append(line)
        if (phase := parse_phase(line)) is not None and len(self._phases) < _PHASES_LIMIT:
            self._phases.setdefault(phase, now_ns)
        if (failed := _STEP_FAILED.search(line)) is not None:  # a login prompt may stand before it
            self.failure = shortened(failed.group())
            self._step_failed = True
        if (match := _SERVICE.match(line)) is not None and match[2] not in _SERVICE_PHASES:
            self.failure = shortened(f"{match[1]}: {match[2]}")
        if (status := parse_exit_status(line)) is not None:
            self.exit_status = status
        if (left := _LEFT.match(line)) is not None and len(self.left) < _NAMES_LIMIT:
            self.left.setdefault(left[1], int(left[2]))
        if (killed := _KILLED.match(line)) is not None:
            name = shortened(killed[1])
            if name in self.killed or len(self.killed) < _NAMES_LIMIT:
                self.killed[name] = self.killed.get(name, 0) + 1

    def stamp(self, phase: str) -> None:
        """Note that a phase that the host sees by itself is reached now; the first time counts."""
        now_ns = time.monotonic_ns()
        with self._changed:
            self._phases.setdefault(phase, now_ns)
            self._changed.notify_all()

    def send_plan(self, data: bytes) -> None:
        """Send to the guest's end; nothing when it has ended meanwhile."""
        if self.send is not None:
            with suppress(OSError):
                self.send(data)

    def send_word(self) -> None:
        """Let a guest go on that waits for its console's input."""
        self.send_plan(b"\n")

    def _is_answer(self, line: str) -> bool:
        """Take a line of the guest's report of its memory; it is in no log, as it is not the workload's."""
        if line == MEMORY_END:
            self._answer, self._asked = "\n".join(self._memory), False
        elif _MEMORY.fullmatch(line) and len(self._memory) < _MEMORY_LINES_LIMIT:
            self._memory.append(line)
        else:
            return not line  # the empty line is the echo of the question
        return True

    def ask_memory(self, timeout_s: float) -> str | None:
        """Return the guest's /proc/meminfo as of now; None when it does not answer in time, or cannot."""
        with self._changed:
            if self.send is None or self._ended:
                return None
            self._memory, self._answer, self._asked = [], None, True
            try:
                self.send(b"\n")
            except OSError:
                return None
            self._changed.wait_for(lambda: self._answer is not None or self._ended, timeout_s)
            self._asked = False
            return self._answer

    def ending(self) -> str:
        """Return why it ended, as far as is known: the workload's status, the kernel's panic, QEMU's own end; or
        nothing."""
        if self.exit_status is not None:
            return f"exit status {self.exit_status}{self._describe_killed()}"
        if self.panic:
            return f"its kernel panicked: {self.panic}"
        if (status := self.emulator_status) is not None and os.WIFSIGNALED(status):
            return f"{self._hypervisor} was killed by signal {os.WTERMSIG(status)}"
        return "" if status is None else f"{self._hypervisor} ended with status {os.waitstatus_to_exitcode(status)}"

    def _describe_killed(self) -> str:
        with self._changed:
            names = ", ".join(f"{name} {count} times" if count > 1 else name for name, count in self.killed.items())
        return f"; its kernel had killed for want of memory: {names}" if names else ""

    def explain_delay(self, timeout_s: float) -> str:
        """Return why the first process has not been seen within so long."""
        end = "ended" if self.ended else f"took longer than {timeout_s:g} s"
        return self.failure or f"its start {end} before its first process"

    @property
    def ended(self) -> bool:
        """Whether the other end is closed."""
        return self._ended

    def phases(self) -> Mapping[str, int]:
        """Return the phases reached so far, in nanoseconds of CLOCK_MONOTONIC."""
        with self._changed:
            return dict(self._phases)

    def tail(self, lines: int = 15) -> str:
        """Return the last lines, a panic and what follows it left out."""
        with self._changed:
            return "\n".join(shortened(line) for line in list(self._tail)[-lines:])

    def wait_for(self, phase: str, timeout_s: float) -> bool:
        """Wait until ``phase`` is reached (True), or a step fails, the console ends or the time is over (False)."""
        with self._changed:
            self._changed.wait_for(lambda: phase in self._phases or self._ended or self._step_failed, timeout_s)
            return phase in self._phases

    def wait_for_left(self, name: str, timeout_s: float) -> int | None:
        """Return the exit status of one of several in the guest; None when it has not ended in time, or the guest has
        without telling of it."""
        with self._changed:
            self._changed.wait_for(lambda: name in self.left or self._ended, timeout_s)
            return self.left.get(name)

    def wait_for_end(self, timeout_s: float) -> bool:
        """Wait until the other end is closed; False when it is not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout_s)
