"""Carry out the commands of testbed-runtime, an OCI runtime on the command line with the flags of runc and crun.

With ``--explain``, create and run start nothing: they print the plan, each step with its system call, its arguments
and the reason for it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from runtime.errors import TestbedError, UsageError
from runtime.oci.arguments import Said, parsed
from runtime.oci.caller import Caller, CallerGone
from runtime.oci.creation import Created, Creation
from runtime.oci.invocation import Ending, Invocation, job, started_job
from runtime.oci.state import UNLOCK, StateDir, UnknownContainer
from runtime.plan import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def _creation(invocation: Invocation) -> Creation:
    options, environment = invocation.options, invocation.caller.environment
    of_service: tuple[int, str] = (0, "")
    if "LISTEN_FDS" in environment or "NOTIFY_SOCKET" in environment:
        from runtime.oci.notify import passed_on

        of_service = passed_on(environment, invocation.caller.pid)
    return Creation(
        options.bundle,
        options.console_socket,
        options.pid_file,
        options.preserve_fds,
        not options.no_pivot,
        not options.no_new_keyring,
        options.config,
        options.pidfd_socket,
        *of_service,
    )


def _wants_systemd(options: argparse.Namespace) -> bool:
    return bool(options.systemd_cgroup or options.cgroup_manager == "systemd")


def _explain(invocation: Invocation, creation: Creation) -> Ending:
    from runtime.oci.creation import checked, plan_of
    from runtime.plan.explain import explain

    creation = replace(creation, console_socket=None)
    wants_systemd = _wants_systemd(invocation.options)
    config, record = checked(invocation.container(), creation, wants_systemd, invocation.caller, invocation.warn)
    invocation.print(explain(plan_of(config, record)) + "\n")
    return Ending()


def _made(invocation: Invocation, creation: Creation) -> Created:
    from runtime.oci.creation import create

    wants_systemd = _wants_systemd(invocation.options)
    return create(
        invocation.container(),
        creation,
        invocation.caller,
        _deletion(invocation.options),
        wants_systemd=wants_systemd,
        warn=invocation.warn,
    )


def _create(invocation: Invocation) -> Ending:
    creation = _creation(invocation)
    if invocation.options.explain:
        return _explain(invocation, creation)
    _made(invocation, creation)
    return Ending()


def _run(invocation: Invocation) -> Ending:
    from runtime.config import bundle

    options, caller, container = invocation.options, invocation.caller, invocation.container()
    creation = _creation(invocation)
    if options.explain:
        return _explain(invocation, creation)
    if not options.detach:
        caller.hold_signals()
    if not options.console_socket:
        process = bundle.load(Path(caller.path(options.bundle)), options.config).process
        if process and process.terminal and options.detach:
            raise UsageError("run --detach: a terminal needs --console-socket")
        creation = replace(creation, console_socket=None if process and process.terminal else "")
    made = _made(invocation, creation)
    try:
        relay = _relay(caller, made.master)
        notifier = _start(invocation, container, in_foreground=not options.detach)
    except BaseException as error:
        if not isinstance(error, CallerGone):
            _delete_one(invocation, container)
        raise
    if options.detach:
        return Ending(0, _ended(notifier))
    return Ending(0, (UNLOCK, s.Accompany(made.record.pid, relay)), () if options.keep else _deletion(options))


def _relay(caller: Caller, master: int) -> int:
    """Relay a terminal to the caller's own one; return the relay's process id, or 0 without a terminal."""
    if master < 0:
        return 0
    try:
        return started_job(caller, {3: master}, "terminal")
    finally:
        os.close(master)


def _ended(notifier: int) -> tuple[s.Step, ...]:
    return (UNLOCK, s.Reap(notifier)) if notifier else ()


def _deletion(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the arguments of the command that deletes the container."""
    flags = [
        f"--{name}={value}"
        for name in ("root", "log", "log-format")
        if (value := getattr(options, name.replace("-", "_")))
    ]
    return ("testbed-runtime", *flags, *(["--debug"] if options.debug else []), "delete", "--force", options.id)


def _delete_one(invocation: Invocation, container: StateDir) -> None:
    from runtime.oci import lifecycle

    with suppress(UnknownContainer):  # start may have removed the container
        lifecycle.delete(container, invocation.caller, force=True, warn=invocation.warn)


def _start(invocation: Invocation, container: StateDir, *, in_foreground: bool) -> int:
    """Start a created container. If a service manager listens, a job tells it when the container is ready and names the
    service's main process: the client ``in_foreground``, else the container's. Returns the job's process id, or 0."""
    from runtime.oci import lifecycle

    caller = invocation.caller
    if "NOTIFY_SOCKET" not in caller.environment:
        lifecycle.start(container, caller, warn=invocation.warn)
        return 0
    from runtime.oci.notify import relayed

    record = container.read()
    notifier = (
        relayed(container, record, caller, caller.pid if in_foreground else 0) if record.choices.get("notify") else 0
    )
    lifecycle.start(container, caller, warn=invocation.warn)
    return notifier


def _start_created(invocation: Invocation) -> Ending:
    return Ending(0, _ended(_start(invocation, invocation.container(), in_foreground=False)))


def _exec(invocation: Invocation) -> Ending:
    from runtime.oci import execution

    options, caller, container = invocation.options, invocation.caller, invocation.container()
    further = execution.Execution(
        execution.wanted_process(options, container.read(), caller, invocation.warn),
        options.console_socket,
        options.pid_file,
        options.preserve_fds,
        options.detach,
        tuple(options.cgroup),
        options.ignore_paused,
        options.pidfd_socket,
    )
    started = execution.execute(container, further, caller, warn=invocation.warn)
    if options.detach:
        if started.master >= 0:
            os.close(started.master)
        return Ending()
    return Ending(0, (UNLOCK, s.Accompany(started.pid, _relay(caller, started.master))))


def _update(invocation: Invocation) -> Ending:
    from runtime.config.bundle import load_resources
    from runtime.config.decode import checked
    from runtime.config.resources import BlockIO, Cpu, Memory, Pids, Resources
    from runtime.oci import resources

    options = invocation.options
    if options.l3_cache_schema or options.mem_bw_schema:
        raise UsageError("update --l3-cache-schema, --mem-bw-schema: this runtime does not set Intel's RDT")
    if options.resources:
        path = invocation.caller.path("/dev/stdin" if options.resources == "-" else options.resources)
        wanted = load_resources(Path(path), invocation.warn)
    else:
        wanted = Resources(
            memory=Memory(options.memory, options.memory_reservation, options.memory_swap,
                          options.kernel_memory, options.kernel_memory_tcp),
            cpu=Cpu(options.cpu_share, options.cpu_quota, options.cpu_burst, options.cpu_period,
                    options.cpu_rt_runtime, options.cpu_rt_period,
                    options.cpuset_cpus, options.cpuset_mems, options.cpu_idle),
            pids=Pids(options.pids_limit) if options.pids_limit is not None else None,
            block_io=BlockIO(options.blkio_weight) if options.blkio_weight else None,
        )  # fmt: skip
    resources.update(invocation.container(), checked(wanted, "update"), invocation.caller)
    return Ending()


def _image_run(invocation: Invocation) -> Ending:
    caller, options = invocation.caller, invocation.options
    env = tuple(f"{name}={value}" for name, value in caller.environment.items())
    words = job("image", "explain" if options.explain else "", options.image, *options.arguments)
    return Ending(1, (s.Umask(caller.request.umask), s.Exec(words, env)))


def _delete(invocation: Invocation) -> Ending:
    """Delete all containers that are named, even if one of them fails."""
    from runtime.oci import lifecycle

    errors = list[TestbedError]()
    force = invocation.options.force
    for container in [invocation.container(name) for name in invocation.options.ids]:
        try:
            lifecycle.delete(container, invocation.caller, force=force, warn=invocation.warn)
        except CallerGone:
            raise
        except UnknownContainer as error:
            errors += [] if force else [error]
        except TestbedError as error:
            errors.append(error)
    for earlier in errors[:-1]:
        invocation.tell_error(earlier)
    if errors:
        raise errors[-1]
    return Ending()


def _kill(invocation: Invocation) -> Ending:
    from runtime.oci import lifecycle
    from runtime.processes import parse_signal

    number = parse_signal(invocation.options.signal)
    lifecycle.kill(invocation.container(), number, invocation.caller, everything=invocation.options.all)
    return Ending()


def _pause(invocation: Invocation) -> Ending:
    from runtime.oci import lifecycle

    lifecycle.pause(invocation.container(), invocation.options.command == "pause", invocation.caller)
    return Ending()


def _query(invocation: Invocation) -> Ending:
    from runtime.oci import queries

    return queries.COMMANDS[invocation.options.command](invocation)


_COMMANDS = {
    "create": _create,
    "run": _run,
    "start": _start_created,
    "exec": _exec,
    "kill": _kill,
    "delete": _delete,
    "update": _update,
    "image-run": _image_run,
    **dict.fromkeys(("pause", "resume"), _pause),
    **dict.fromkeys(("state", "list", "ps", "spec", "events", "features"), _query),
}


def serve(caller: Caller) -> None:
    """Carry out what the caller asks for and tell it which exit status to return. Raises CallerGone."""
    try:
        options = parsed(caller.request.arguments)
    except Said as said:
        caller.say(said.descriptor, said.text)
        return caller.finish(said.status)
    invocation = Invocation(options, caller)
    ending = Ending(1)
    try:
        invocation.open_log()
        words = " ".join(caller.request.arguments)
        invocation.debug(f"{words}, as user {os.geteuid()}")
        ending = _COMMANDS[options.command](invocation)
    except CallerGone:
        raise
    except (TestbedError, OSError) as error:
        ending = _told(invocation, error)
    invocation.debug(
        f"{options.command}: exit status {ending.status} after {time.monotonic() - invocation.began:.3f} s"
    )
    caller.finish(ending.status, *ending.steps, more=ending.more)


def _told(invocation: Invocation, error: Exception) -> Ending:
    invocation.tell_error(error)
    return Ending(error.exit_code if isinstance(error, TestbedError) else 1)
