"""What the RUN instructions of one build share: a lease, names for their containers, and an end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


class Cancelled(Exception):
    """The build ends, as another of its stages has failed or somebody interrupted it."""


class Runs:
    """The containers of a build, which are below one lease. ``cancel`` ends them, and lets no further one start."""

    def __init__(self) -> None:
        self._owner = f"build-{os.getpid()}"
        self._lock = threading.Lock()
        self._undo = ExitStack()
        self._scratch: Path | None = None
        self._count = 0
        self._running: set[int] = set()
        self._cancelled = False

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def check(self) -> None:
        """Raise Cancelled if the build is to end."""
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Kill what runs. Whoever waits for it gets Cancelled."""
        with self._lock:
            self._cancelled = True
            for pidfd in self._running:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def memory(self) -> Path:
        """Return a directory that lasts as long as the build, in memory where /run is a tmpfs, as on servers.

        Only root enters it, whomever the files in it belong to.
        """
        self._lease()
        assert self._scratch is not None
        private = self._scratch / "private"
        private.mkdir(0o700, exist_ok=True)
        return private

    def name(self) -> str:
        """Return the name of the cgroup of the next container."""
        from runtime.lease import cgroup_name

        self._lease()
        with self._lock:
            self._count += 1
            return cgroup_name(self._owner, "run" if self._count == 1 else f"run-{self._count}")

    def _lease(self) -> None:
        from runtime.lease import lease  # leases and cgroups, which a build that runs nothing does without

        with self._lock:
            if self._scratch is None:  # a build without a RUN needs none, and need not be root's
                self._scratch = self._undo.enter_context(lease(self._owner))

    @contextmanager
    def running(self, pid: int) -> Iterator[None]:
        """Let ``cancel`` kill the process ``pid`` within."""
        pidfd = os.pidfd_open(pid)
        try:
            with self._lock:
                self._running.add(pidfd)
            if self._cancelled:  # since it was started
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            yield
        finally:
            with self._lock:
                self._running.remove(pidfd)
            os.close(pidfd)
