"""Start, signal, delete, pause and resume containers, which outlive the command that made them (``creation``)."""

from __future__ import annotations

import errno
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import hierarchies_for
from runtime.config.decode import Warn
from runtime.config.types import Config
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.launcher import Message, StepError, last_word, not_executed, read_last_word, receive, send_go
from runtime.launcher.messages import EXECUTING, FAILED, LISTENER, SYNC
from runtime.oci.caller import Caller, CallerGone
from runtime.oci.creation import config_of, container_surroundings, explained, host_surroundings, plan_of
from runtime.oci.hooks import pid_inside, run_hooks
from runtime.oci.passing import pass_listener
from runtime.oci.scoped import remove_container_cgroup
from runtime.oci.state import Damaged, Record, StateDir, oci_state, status
from runtime.plan import steps as s
from runtime.processes import ProcessGone, alive, await_executed, open_pidfd, wait_exit


class PoststartError(TestbedError):
    """A poststart hook failed; the program is already running by then."""


def _hooks_of_start(record: Record, config: Config, caller: Caller) -> None:
    """Run the startContainer hooks in the container, before its program and with that program's environment."""
    assert config.process is not None
    state = {**oci_state(record, "created"), "pid": pid_inside(record.pid)}
    surroundings = container_surroundings(record, config, "/", config.process.env)
    run_hooks("startContainer", config.hooks.start_container, state, caller, surroundings)


def start(container: StateDir, caller: Caller, *, warn: Warn) -> None:
    """Let the process of a created container execute its program. Raises TestbedError when it cannot or when a hook
    fails; a poststart hook that fails also removes the container (runtime-spec 1.3, Lifecycle, step 9)."""
    try:
        _start(container, caller)
    except PoststartError:
        delete(container, caller, force=True, warn=warn)
        raise


def _start(container: StateDir, caller: Caller) -> None:
    container.lock(caller)
    record = container.read()
    config = config_of(record)
    word = status(container, record, hierarchies_for(record.cgroup))
    if word != "created":
        raise UsageError(f"start container {container.id}: it is {word}, not created")
    with container.connect(caller) as channel, last_word() as descriptor:
        send_go(channel, descriptor)
        _follow(channel, record, config, caller)
        _check_executed(read_last_word(descriptor), record, config)
    try:
        run_hooks("poststart", config.hooks.poststart, oci_state(record, "running"), caller, host_surroundings(record))
    except CallerGone:
        raise
    except TestbedError as error:
        raise PoststartError(f"{error.message}; the container is removed", error.hint) from error


def _follow(channel: socket.socket, record: Record, config: Config, caller: Caller) -> None:
    while True:
        caller.await_message(channel.fileno())
        if (message := receive(channel)) is None:
            break
        if message.kind == SYNC:
            _hooks_of_start(record, config, caller)
            send_go(channel)
        elif message.kind == LISTENER:
            pass_listener(message.descriptor, config, record, record.pid, "created")
        elif message.kind == FAILED:
            raise _failed(message, record, config)


def _failed(message: Message, record: Record, config: Config) -> TestbedError:
    return explained(StepError(plan_of(config, record), message.number, message.value), config.process)


def _check_executed(last: Message, record: Record, config: Config) -> None:
    """Raise TestbedError if the first process died before it executed its program. Where the host has reaped it, its
    last word tells, but for a death within execve itself, which no filter causes: it would have at the first try."""
    if last.kind == FAILED:  # and a filter kept it from saying so
        raise _failed(last, record, config)
    told = await_executed(record.pid, record.start_time)
    if told is False or (told is None and last.kind != EXECUTING):
        raise not_executed()


def kill(container: StateDir, number: int, caller: Caller, *, everything: bool) -> None:
    """Signal the first process or, with ``everything``, all processes in the cgroup. On cgroup v1 a frozen process
    cannot die, so SIGKILL also thaws the container.

    Raises UsageError when the first process is to be signalled and has ended.
    """
    record = container.read()
    hierarchies = hierarchies_for(record.cgroup)
    _kill(container, record, number, caller, everything=everything)
    if number == signal.SIGKILL and record.cgroup and "freezer" in hierarchies.v1:
        cgroup = Cgroup(record.cgroup, hierarchies)
        with suppress(TestbedError, OSError):
            if cgroup.frozen():
                cgroup.freeze(False, by=caller)


def _kill(container: StateDir, record: Record, number: int, caller: Caller, *, everything: bool) -> None:
    if everything and record.cgroup:
        cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
        if not (number == signal.SIGKILL and cgroup.kill_at_once(caller)):
            caller.signal_all(cgroup.pids(), number)
        return
    try:
        pidfd = open_pidfd(record.pid, record.start_time)
    except ProcessGone as error:
        raise UsageError(f"kill container {container.id}: container not running") from error
    try:
        caller.perform(s.SignalProcess(s.RECEIVED_FD, number), descriptors=(pidfd,))
    except StepError as error:
        if error.errno != errno.ESRCH:
            raise
        raise UsageError(f"kill container {container.id}: container not running") from error
    finally:
        os.close(pidfd)


def _end(pid: int, start_time: int, caller: Caller) -> None:
    """Kill a process and wait up to 10 s for its end. Raises ProcessGone."""
    pidfd = open_pidfd(pid, start_time)
    try:
        caller.perform(s.SignalProcess(s.RECEIVED_FD, signal.SIGKILL, tolerate=(errno.ESRCH,)), descriptors=(pidfd,))
        wait_exit(pidfd, 10, caller.keep_alive)
    finally:
        os.close(pidfd)


def _end_unrecorded(pid: int, start_time: int, caller: Caller) -> None:
    """Kill a process of whose cgroup nothing is known but by the process. Raises ProcessGone.

    On cgroup v1 a frozen process cannot die, so it is thawed.
    """
    with suppress(TestbedError, OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if alive(pid, start_time) else ():
            _, controllers, path = line.split(":", 2)
            if "freezer" in controllers.split(","):
                name = path.strip("/")
                Cgroup(name, hierarchies_for(name)).freeze(False, by=caller)
    _end(pid, start_time, caller)


def delete(container: StateDir, caller: Caller, *, force: bool, warn: Warn) -> None:
    """Delete a stopped container or, with ``force``, any: end its processes, remove its cgroup, run its poststop hooks
    and remove its state.

    Raises UsageError, and with ``force`` Busy when another command holds the lock and cannot be made to end.
    """
    if force:
        from runtime.oci.force import lock_by_force

        lock_by_force(container, caller)
    else:
        container.lock(caller)
    try:
        record = container.read()
    except UsageError:
        if not force:
            raise
        with suppress(Damaged, ProcessGone):
            _end_unrecorded(*container.process(), caller)
        # its creation was killed before anything was recorded, or the record is damaged
        caller.later(*container.removal_steps())
        return
    hierarchies = hierarchies_for(record.cgroup)
    word = status(container, record, hierarchies)
    if word not in ("stopped",) and not force:
        raise UsageError(f"delete container {container.id}: it is {word}", "kill it first, or use --force")
    if word != "stopped":
        if word == "paused":
            with suppress(TestbedError, OSError):
                Cgroup(record.cgroup, hierarchies).freeze(False, by=caller)
        with suppress(ProcessGone):
            _end(record.pid, record.start_time, caller)
    if record.cgroup:
        remove_container_cgroup(record, caller)
    with suppress(UsageError, ValueError):
        hooks = config_of(record).hooks.poststop
        run_hooks("poststop", hooks, oci_state(record, "stopped"), caller, host_surroundings(record), warn=warn)
    caller.later(*container.removal_steps())


def pause(container: StateDir, frozen: bool, caller: Caller) -> None:
    """Freeze all processes of a running or created container, or thaw those of a paused one."""
    container.lock(caller)
    record = container.read()
    word = status(container, record, hierarchies_for(record.cgroup))
    if word not in (("running", "created") if frozen else ("paused",)):
        raise UsageError(f"{'pause' if frozen else 'resume'} container {container.id}: it is {word}")
    if not record.cgroup:
        raise PrerequisiteError(f"pause container {container.id}: it has no cgroup", "run as root")
    Cgroup(record.cgroup, hierarchies_for(record.cgroup)).freeze(frozen, by=caller)
