"""One guest's console: its log, its last lines, and the phases that its lines show."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from runtime.plan.guest import EXECUTING, FIRST_USERSPACE

_MARKS = {"kernel_entry": "Linux version ", "first_userspace": FIRST_USERSPACE, "first_process": EXECUTING}
_STEP_FAILED = re.compile(r"testbed: (?:step|clone|/plan).*")
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
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ended = False
        self.panic = ""
        self.failure = ""
        self.log_failure = ""
        self.emulator_status: int | None = None
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
            self._flush(last=not data)
            self._changed.notify_all()

    def _flush(self, last: bool) -> None:
        """Write what was logged; a full disk loses it, which is said, while the guest goes on."""
        if self._log.closed:
            return
        try:
            self._log.flush()
        except OSError as error:
            self.log_failure = f"write the log {self._log.name}: {error.strerror}"
        if last or self.log_failure:
            with suppress(OSError):  # what could not be written, again
                self._log.close()

    def _take(self, line: str, now_ns: int) -> None:
        if not self.log_failure:
            with suppress(OSError):  # the disk is full: the flush that follows says so
                self._log.write(f"[{now_ns / 1e9:.6f}] {line}\n")
        if not self.panic and KERNEL_PANIC in line:
            self.panic = line[line.index(KERNEL_PANIC) :]
        if not self.panic:  # the registers that a panic prints say nothing of the workload
            self._tail.append(line)
        if (phase := phase_of(line)) is not None:
            self._phases.setdefault(phase, now_ns)
        if _STEP_FAILED.match(line):
            self.failure = line
        if (status := exit_status_of(line)) is not None:
            self.exit_status = status

    def ending(self) -> str:
        """Why it ended, as far as is known: the workload's status, the kernel's panic, QEMU's own end; or nothing."""
        if self.exit_status is not None:
            return f"exit status {self.exit_status}"
        if self.panic:
            return f"its kernel panicked: {self.panic}"
        if (status := self.emulator_status) is not None and os.WIFSIGNALED(status):
            return f"QEMU was killed by signal {os.WTERMSIG(status)}"
        return (
            "" if self.emulator_status is None else f"QEMU ended with status {os.waitstatus_to_exitcode(status or 0)}"
        )

    @property
    def ended(self) -> bool:
        """Whether QEMU has closed its end."""
        return self._ended

    def phases(self) -> Mapping[str, int]:
        """The phases reached so far, in nanoseconds of CLOCK_MONOTONIC."""
        with self._changed:
            return dict(self._phases)

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
