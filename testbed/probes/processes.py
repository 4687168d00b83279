"""The canary that is a process of the host's: what is done to it is seen from outside."""

from __future__ import annotations

import os
import re
import resource
import selectors
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from runtime.speed import scale
from testbed.probes.build import PROGRAM
from testbed.probes.place import Untestable

DESCRIPTOR = 9  # canary.c's CANARY_DESCRIPTOR
FIRST_SIGNAL = 40  # of the real-time ones, of which the C library takes the first for itself
NICE, SCORE, LIMIT = 7, 321, 4096
_FORMER_LIMIT = 8192
_LAST_SIGNAL = 64  # which no attempt sends: it is taken when none before it waits any more
_AT = re.compile(r"at ([0-9]{1,20}) ([0-9]{1,20})\n")
_START_S, _SETTLE_S = 10.0, 5.0


class CanaryProcess:
    """A process with a secret, without capabilities, as root: who sees it can change it. Ends with its parent."""

    def __init__(self, secret: str, folder: Path) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (_FORMER_LIMIT, _FORMER_LIMIT))

        self.secret = secret
        self._process = subprocess.Popen(
            [str(PROGRAM.build()), "canary", secret],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"CANARY": secret},
            cwd=folder,
            process_group=0,
            preexec_fn=limit,
        )
        self.pid = self._process.pid
        self._processors = os.sched_getaffinity(self.pid)
        self._said = ""
        self.address, self.flag = self._read_addresses()

    def _read_addresses(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not (found := _AT.match(self._said)):
                if not selector.select(_START_S) or not self._read():
                    self.end()
                    raise Untestable("the host's own process did not start")
        return found[1], found[2]

    def _read(self) -> bool:
        assert self._process.stdout is not None
        try:
            more = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self._said += more.decode(errors="replace")
        return bool(more)

    def settle(self) -> None:
        """Wait until it has told of all that was done to it before."""
        assert self._process.stdout is not None
        told, deadline_s = f"signal {_LAST_SIGNAL}\n", time.monotonic() + scale(_SETTLE_S)
        before = self._said.count(told)
        with suppress(ProcessLookupError):
            os.kill(self.pid, _LAST_SIGNAL)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while self._said.count(told) == before:
                if not selector.select(max(0.0, deadline_s - time.monotonic())) or not self._read():
                    return

    def has_said(self, line: str) -> bool:
        """Return whether it has printed a line."""
        self._read()
        return line in self._said.splitlines()

    def priority_changed(self) -> str:
        """Return what its priority was made, in words."""
        nice = os.getpriority(os.PRIO_PROCESS, self.pid)
        return f"the host's process has the nice value {nice}" if nice == NICE else ""

    def processors_changed(self) -> str:
        """Return to what its processors were reduced, in words."""
        now = os.sched_getaffinity(self.pid)
        return f"the host's process may use {len(now)} of {len(self._processors)}" if now != self._processors else ""

    def limit_changed(self) -> str:
        """Return to what its limit was lowered, in words."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_CORE)[1]
        return f"the host's process has the limit {hard}" if hard == LIMIT else ""

    def score_changed(self) -> str:
        """Return what its score was set to, in words."""
        score = Path(f"/proc/{self.pid}/oom_score_adj").read_text().strip()
        return f"the host's process has the score {score}" if score == str(SCORE) else ""

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
