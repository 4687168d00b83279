"""One guest's console: its log, its last lines, and the phases that its lines show."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Collection, Mapping
from typing import IO

from runtime.plan.guest import EXECUTING, FIRST_USERSPACE
from runtime.supervisor import CREATED
from runtime.supervisor import EXECUTING as CONTAINER_EXECUTING

_MARKS = {"kernel_entry": "Linux version ", "first_userspace": FIRST_USERSPACE, "first_process": EXECUTING}
_STEP_FAILED = re.compile(r"testbed: (?:step|clone|/plan).*")
# What a guest's supervisor tells of its containers, at the beginning of a line; what they write comes after their name.
_OF_SERVICE = re.compile(r"testbed: ([^: ]+): (created|exec|ended: \d+|failed: .*)$")
_SERVICE_PHASES = {CREATED: "container_created", CONTAINER_EXECUTING: "first_process"}
_INIT_ENDED = re.compile(r"Attempted to kill init! exitcode=0x([0-9a-f]{8})")
KERNEL_PANIC = "Kernel panic - not syncing"
_TAIL_LINES = 40


def phase_of(line: str) -> str | None:
    """The phase that a console line shows to be reached, if any."""
    return next((phase for phase, mark in _MARKS.items() if mark in line), None)


def exit_status_of(line: str) -> int | None:
    """The status of a PID 1 that ended, from the kernel's panic line: 128 + n for signal n (wait(2) encoding)."""
    if (found := _INIT_ENDED.search(line)) is None:
        return None
    status = int(found.group(1), 16)
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


class Console:
    """One guest's console: its ``phases`` as they are reached, and its last lines.

    Log lines are ``[seconds of CLOCK_MONOTONIC] text``. The reader's thread feeds it, any thread may wait.
    """

    def __init__(self, log: IO[str]) -> None:
        self._log = log
        self._pending = b""
        self._changed = threading.Condition()
        self._phases: dict[str, int] = {}
        self._services: dict[str, dict[str, int]] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ended = False
        self._panicked = False
        self.failure = ""
        self.exit_status: int | None = None

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take what arrived at ``now_ns``; empty data is the end of the console."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if not data and self._pending:
            lines, self._pending = [*lines, self._pending], b""
        with self._changed:
            for line in lines:
                self._take(line.decode(errors="replace").rstrip("\r"), now_ns)
            self._ended = self._ended or not data
            try:
                self._log.flush()
                if not data:
                    self._log.close()
            except OSError as error:  # a full disk: the guest goes on, the loss is said
                self.failure = f"write the console's log: {error}"
            self._changed.notify_all()

    def _take(self, line: str, now_ns: int) -> None:
        self._log.write(f"[{now_ns / 1e9:.6f}] {line}\n")
        self._panicked = self._panicked or KERNEL_PANIC in line
        if not self._panicked:  # the registers that a panic prints say nothing of the workload
            self._tail.append(line)
        if (phase := phase_of(line)) is not None:
            self._phases.setdefault(phase, now_ns)
        if _STEP_FAILED.match(line):
            self.failure = line
        if (told := _OF_SERVICE.match(line)) is not None:
            self._take_of_service(told[1], told[2], now_ns)
        if (status := exit_status_of(line)) is not None:
            self.exit_status = status

    def _take_of_service(self, service: str, what: str, now_ns: int) -> None:
        if (phase := _SERVICE_PHASES.get(what)) is not None:
            self._services.setdefault(service, {}).setdefault(phase, now_ns)
        else:
            self.failure = f"{service}: {what}"

    @property
    def ended(self) -> bool:
        """Whether QEMU has closed its end."""
        return self._ended

    def phases(self) -> Mapping[str, int]:
        """The phases reached so far, in nanoseconds of CLOCK_MONOTONIC."""
        with self._changed:
            return dict(self._phases)

    def services(self) -> Mapping[str, Mapping[str, int]]:
        """The phases that containers in the guest have reached so far, by service."""
        with self._changed:
            return {name: dict(phases) for name, phases in self._services.items()}

    def wait_for_services(self, names: Collection[str], timeout_s: float) -> bool:
        """``wait_for`` the first processes of all these services, each a container in the guest."""
        with self._changed:

            def reached() -> bool:
                return all("first_process" in self._services.get(name, {}) for name in names)

            self._changed.wait_for(lambda: reached() or self._ended, timeout_s)
            return reached()

    def tail(self, lines: int = 15) -> str:
        """The last lines, a panic and what follows it left out."""
        with self._changed:
            return "\n".join(list(self._tail)[-lines:])

    def wait_for(self, phase: str, timeout_s: float) -> bool:
        """Wait until ``phase`` is reached (True), or the console ends or the time is over (False)."""
        with self._changed:
            self._changed.wait_for(lambda: phase in self._phases or self._ended, timeout_s)
            return phase in self._phases

    def wait_for_end(self, timeout_s: float) -> bool:
        """Wait until QEMU has closed its end; False when it has not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout_s)
