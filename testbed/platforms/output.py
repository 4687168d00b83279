"""The thread that reads what containers write, from a pipe each into a bounded log each.

It looks a few times a second, so that a workload that writes a line for each request does not wake it for each, and
at once again where a pipe was filling up. A workload waits only while its pipe is full.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from contextlib import suppress

from msgspec import Struct

from runtime.errors import TestbedError
from runtime.output import BoundedLog
from testbed.platforms.protocol import Instance

# More than pipe(7)'s 64 KiB, since it is emptied only every LOOK_S; every user may have 1 MiB.
PIPE_BYTES = 1 << 18
LOOK_S = 0.02


class _Pipe(Struct):
    """A container's pipe and its log; ``failure`` is why nothing more is written there."""

    name: str
    reading: int
    log: BoundedLog
    failure: str = ""


class ContainerOutput:
    """The pipes and logs of running containers, by instance."""

    def __init__(self) -> None:
        self._pipes: dict[str, _Pipe] = {}
        self._by_descriptor: dict[int, _Pipe] = {}
        self._lock = threading.Lock()  # of all that follows: one thread reads at a time
        self._buffer = memoryview(bytearray(PIPE_BYTES))
        self._poll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._stop, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    def open(self, instance: Instance) -> int:
        """Make the pipe of an instance, and read it from now on; returns the end to write to, the caller's to close.

        It belongs to the user whom the workload runs as, who may open /dev/stdout then. Raises TestbedError.
        """
        user = instance.spec.process.user
        try:
            log = BoundedLog(instance.log)
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise TestbedError(f"log the output of {instance.name} to {instance.log}: {error.strerror}") from error
        os.set_blocking(reading, False)
        with suppress(OSError):  # it has 64 KiB then
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with suppress(OSError):  # it is root's then
            os.fchown(writing, user.uid, user.gid)
        pipe = _Pipe(instance.name, reading, log)
        with self._lock:
            self._pipes[instance.name] = self._by_descriptor[reading] = pipe
            self._poll.register(reading, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="container output", daemon=True)
                self._thread.start()
        return writing

    def flush(self, name: str) -> None:
        """Read what an instance has written by now."""
        with self._lock:
            if (pipe := self._pipes.get(name)) is not None:
                self._read(pipe)

    def failure(self, name: str) -> str:
        """Return why the log of an instance is not whole, a full disk for one; or nothing."""
        pipe = self._pipes.get(name)
        return pipe.failure if pipe else ""

    def end(self, name: str) -> None:
        """Read the rest of an instance that has been ended, and close its log."""
        with self._lock:
            pipe = self._pipes.pop(name, None)
            if pipe is None:
                return
            self._read(pipe)
            self._forget(pipe)
            os.close(pipe.reading)
            with suppress(OSError):  # what could not be written
                pipe.log.close()

    def close(self) -> None:
        """End the thread and every log."""
        os.eventfd_write(self._stop, 1)
        if self._thread is not None:
            self._thread.join()
        for name in list(self._pipes):
            self.end(name)
        self._poll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            if self._stop in ready:
                return
            with self._lock:
                pipes = [pipe for descriptor in ready if (pipe := self._by_descriptor.get(descriptor)) is not None]
                most = max(map(self._read, pipes), default=0)
            if most < PIPE_BYTES // 4:
                time.sleep(LOOK_S)

    def _read(self, pipe: _Pipe) -> int:
        """Read a pipe once, as much as it can hold; returns how much there was."""
        try:
            count = os.readv(pipe.reading, [self._buffer])
        except BlockingIOError:
            return 0
        if not count:
            self._forget(pipe)
        elif not pipe.failure:
            try:
                pipe.log.write(self._buffer[:count])
            except OSError as error:
                pipe.failure = f"write the log {pipe.log.path}: {error.strerror}"
        return count

    def _forget(self, pipe: _Pipe) -> None:
        """Wait no more for a pipe to which nobody writes any more."""
        if self._by_descriptor.pop(pipe.reading, None) is not None:
            self._poll.unregister(pipe.reading)
