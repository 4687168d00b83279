"""Sees when the first program of a root file system is executed, whoever executes it: fanotify(7).

A peer's program starts the workload by itself, after whatever it does before. The kernel tells of the first file of
the instance's own root that is opened to be executed (FAN_OPEN_EXEC), and which process does it: the workload's
command, since the peer's own programs come from the host. That is a fraction of a millisecond before the execve is
done.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time

from msgspec import Struct

from runtime.errors import PrerequisiteError

_CLOEXEC, _NONBLOCK = 0x1, 0x2  # include/uapi/linux/fanotify.h
_ADD_FILESYSTEM = 0x1 | 0x100
_OPEN_EXEC = 0x1000
_EVENT = struct.Struct("=IBBHQii")
_AT_FDCWD = -100


class Executed(Struct, frozen=True):
    """The first program of a root was executed: when (CLOCK_MONOTONIC), and by which process."""

    at_ns: int
    pid: int


class ExecWatch:
    """Watches the roots of instances, by their names, until ``close``. Each has a fanotify group of its own until its
    first event: an event does not say in which of several overlays a file was opened."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._changed = threading.Condition()
        self._groups: dict[int, str] = {}
        self._seen: dict[str, Executed] = {}
        self._poll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="first programs", daemon=True)
        self._thread.start()

    def watch(self, name: str, root: str) -> None:
        """Watch the file system that is mounted at ``root``, of which no program has been executed yet.

        Raises PrerequisiteError when the kernel does not let us.
        """
        group = self._libc.fanotify_init(_CLOEXEC | _NONBLOCK, os.O_RDONLY | os.O_CLOEXEC)
        if group < 0:
            raise _refused("fanotify_init")
        mask = ctypes.c_uint64(_OPEN_EXEC)
        if self._libc.fanotify_mark(group, ctypes.c_uint(_ADD_FILESYSTEM), mask, _AT_FDCWD, root.encode()):
            refused = _refused("fanotify_mark")
            os.close(group)
            raise refused
        with self._changed:
            self._groups[group] = name
            self._poll.register(group, select.EPOLLIN)

    def find(self, name: str) -> Executed | None:
        """Return the first program of an instance, if there has been one, also when the thread has not got round to it:
        the kernel has told before the program runs."""
        now_ns = time.monotonic_ns()
        with self._changed:
            own = [group for group, other in self._groups.items() if other == name]
            left = [group for group in own if self._take(group, now_ns)]
        for group in left:
            os.close(group)
        return self._seen.get(name)

    def wait(self, name: str, timeout_s: float) -> Executed | None:
        """Wait for the first program of an instance; None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._seen, timeout_s)
            return self._seen.get(name)

    def forget(self, name: str) -> None:
        """Watch an instance no more."""
        with self._changed:
            self._seen.pop(name, None)
            left = [group for group, other in self._groups.items() if other == name]
            for group in left:
                self._leave(group)
        for group in left:
            os.close(group)

    def close(self) -> None:
        """End the watching, and its thread."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for group in self._groups:
            os.close(group)
        self._groups.clear()
        self._poll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            now_ns = time.monotonic_ns()
            if self._stop in ready:
                return
            with self._changed:  # a group that is not among them was forgotten meanwhile
                done = [group for group in ready if group in self._groups and self._take(group, now_ns)]
            for group in done:  # the kernel waits for all readers of marks, some 15 ms: nobody shall wait with it
                os.close(group)

    def _take(self, group: int, now_ns: int) -> bool:
        """Read a group's first event, which is its last; False when there is none."""
        try:
            data = os.read(group, _EVENT.size)
        except BlockingIOError:
            return False
        _, _, _, _, _, descriptor, pid = _EVENT.unpack_from(data)
        if descriptor >= 0:
            os.close(descriptor)
        self._seen[self._groups[group]] = Executed(now_ns, pid)
        self._leave(group)
        self._changed.notify_all()
        return True

    def _leave(self, group: int) -> None:
        self._poll.unregister(group)
        del self._groups[group]


def _refused(call: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"watch for the first program of an instance: {call}: {os.strerror(ctypes.get_errno())}",
        "run as root, on Linux 5.0 or later with CONFIG_FANOTIFY",
    )
