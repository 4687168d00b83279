"""Runs a further command in a service of a project, as `./invoke exec` does."""

from __future__ import annotations

import os
import posixpath
import selectors
import signal
import threading
from contextlib import ExitStack, suppress
from errno import EACCES, ENOENT
from pathlib import Path

from msgspec.structs import replace

from runtime.console import relay
from runtime.container import Joined, join, reap
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Layer
from runtime.images.user import resolve_user
from runtime.launcher import StepError
from runtime.lease import cgroup_name
from runtime.processes import alive
from runtime.spec import Process, Spec
from testbed.projects.commands import about_command
from testbed.projects.guest_execution import Refused, execute_in_guest
from testbed.projects.record import Member, Project
from testbed.qemu.variants import VARIANTS

_PIECE_BYTES, _MOST_PIECES = 1 << 16, 64
# As a shell says of a command that it cannot find, or may not execute.
_STATUS_NOT_FOUND, _STATUS_REFUSED = 127, 126


def execute(
    project: Project,
    service: str,
    words: tuple[str, ...],
    *,
    terminal: bool,
    user: str = "",
    working_dir: str = "",
) -> int:
    """Run a command in a service's container or guest, with our standard streams, and return its exit status.

    With a ``terminal`` it gets one of its own, which ours is relayed to. It has the service's user and directory unless
    others are given. Raises UsageError for a service that does not run, or in which nobody starts a program, and for a
    user that its image lacks.
    """
    record = project.record
    if record is None or not project.alive:
        raise UsageError(f"{project.name} is not running", f"./invoke up {project.name}")
    member = record.member(service)
    check_executable(member, record.platform)
    spec = project.specs()[service]
    process = replace(spec.process, args=words)
    if user:
        layers = [Layer("", Path(path)) for path in spec.layers]
        process = replace(process, user=resolve_user(user, layers))
    if working_dir:
        process = replace(process, cwd=posixpath.join(process.cwd, working_dir))
    cgroup = cgroup_name(project.directory.name, member.instance)
    try:
        if record.platform != "container":
            return execute_in_guest(project, member, process, terminal=terminal)
        if terminal:
            return _in_terminal(spec, process, member, cgroup)
        return _through_pipes(spec, process, member, cgroup)
    except (StepError, Refused) as error:
        errno = about_command(error) if isinstance(error, StepError) else error.errno
        if errno in (ENOENT, EACCES):
            raise _NotThere(f"exec in {service}: {words[0]}: {os.strerror(errno)}", errno) from error
        raise


class _NotThere(WorkloadError):
    """The command is not in the container; the exit code is what a shell would return."""

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message, "its path is looked up in the container")
        self.exit_code = _STATUS_NOT_FOUND if errno == ENOENT else _STATUS_REFUSED


def check_executable(member: Member, platform: str) -> None:
    """Raise UsageError for a service in which no command can be executed, with what can be done instead."""
    is_guest = platform != "container"
    if is_guest and not replace(VARIANTS[platform], commands=True).has_port:
        raise UsageError(
            f"exec in {member.name}: it runs in a stock system ({platform}), in which nothing of ours takes commands",
            f"./invoke logs {member.name} has its console; ./invoke up --platform vm, or container, takes commands",
        )
    if member.state != "running" or not (is_guest or alive(member.pid, member.ticks)):
        raise UsageError(f"exec in {member.name}: it is {member.state}", f"./invoke logs {member.name}")


def _in_terminal(spec: Spec, process: Process, member: Member, cgroup: str) -> int:
    joined = join(spec, process, pid=member.pid, cgroup=cgroup, streams=(0, 1, 2), terminal=True)
    try:
        relay(joined.master)
    finally:
        os.close(joined.master)
        status = _end(joined)
    return status


def _end(joined: Joined) -> int:
    status = reap(joined.pid)
    assert status is not None  # waited without a limit
    return status


def _through_pipes(spec: Spec, process: Process, member: Member, cgroup: str) -> int:
    """Pass our streams on through pipes: a file of ours is not for the container to reopen, nor to be given to its
    user."""
    with ExitStack() as undo:
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
        for descriptor in ours[1:]:
            undo.callback(os.close, descriptor)
        try:
            joined = join(spec, process, pid=member.pid, cgroup=cgroup, streams=theirs)
        except BaseException:
            os.close(ours[0])
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        threading.Thread(target=_feed, args=(ours[0],), daemon=True).start()
        try:
            _pass_on(joined.pid, {ours[1]: 1, ours[2]: 2})
        except BaseException:
            os.kill(joined.pid, signal.SIGKILL)
            _end(joined)
            raise
        return _end(joined)


def _feed(pipe: int) -> None:
    """Copy our standard input until its end, or until nobody reads any more."""
    with suppress(OSError):
        while data := os.read(0, _PIECE_BYTES):
            while data:
                data = data[os.write(pipe, data) :]
    os.close(pipe)


def _pass_on(pid: int, targets: dict[int, int]) -> None:
    """Copy what comes from the pipes until the process has ended, and what it had written by then."""
    pidfd = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            for pipe in targets:
                os.set_blocking(pipe, False)
                selector.register(pipe, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = [key.fd for key, _ in selector.select()]
                ended = pidfd in ready
                for pipe in targets if ended else [one for one in ready if one in targets]:
                    _empty(pipe, targets[pipe], selector)
    finally:
        os.close(pidfd)


def _empty(pipe: int, target: int, selector: selectors.BaseSelector) -> None:
    """Copy what is in a pipe now; not what a process in the background goes on to write there for ever."""
    with suppress(BlockingIOError):
        for _ in range(_MOST_PIECES):
            data = os.read(pipe, _PIECE_BYTES)
            if not data:
                with suppress(KeyError):  # it ended before the process did
                    selector.unregister(pipe)
                return
            _write(target, data)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
