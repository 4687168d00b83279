"""Start a further process in a running container (``exec``)."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.cgroups.placing import hierarchies_for
from runtime.config.bundle import load_process
from runtime.config.decode import Warn, checked, is_number
from runtime.config.process import Capabilities, Process, User
from runtime.config.validate import Host, validate_process
from runtime.errors import UsageError
from runtime.launcher import Launch, StepError
from runtime.launcher.messages import CONSOLE, LISTENER, SYNC
from runtime.oci.caller import Caller
from runtime.oci.creation import config_of, explained
from runtime.oci.filters import KEPT_FILTERS, keeping_steps, recall
from runtime.oci.passing import check_preserved, pass_listener, pass_on, pid_file_refused, pid_file_step
from runtime.oci.scoped import in_scope, join_scope, joins_through_systemd
from runtime.oci.state import UNLOCK, Record, StateDir, status
from runtime.plan.execution import exec_plan, keeps_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


class Execution(Struct, frozen=True):
    """The options of ``exec``: which process to start, where its terminal, its pid and a pidfd of it go, how many more
    descriptors it keeps, whether to ``detach`` from it, into which ``cgroups`` below the container's it goes
    (``[CONTROLLER[,...]:]PATH``), and whether the container may be paused."""

    process: Process
    console_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0
    detach: bool = False
    cgroups: tuple[str, ...] = ()
    ignore_paused: bool = False
    pidfd_socket: str = ""


class Executed(Struct, frozen=True):
    """A process that was started: its ``pid`` and the master side of its terminal, which we have to close, or -1."""

    pid: int
    master: int = -1


def wanted_process(options: argparse.Namespace, record: Record, caller: Caller, warn: Warn) -> Process:
    """Return the process that the options ask for: one from a file, or the container's own, changed by options."""
    own = config_of(record).process
    assert own is not None
    process = (
        inherited(load_process(Path(caller.path(options.process)), warn), own)
        if options.process
        else _changed(own, options)
    )
    return replace(
        process,
        apparmor_profile=options.apparmor or process.apparmor_profile,
        selinux_label=options.process_label or process.selinux_label,
    )


def inherited(process: Process, own: Process) -> Process:
    """Complete a process from a file: it inherits the capabilities and labels that it does not set from the container's
    ``own`` process, but not the resource limits (as with runc and crun)."""
    return replace(
        process,
        capabilities=process.capabilities or own.capabilities,
        apparmor_profile=process.apparmor_profile or own.apparmor_profile,
        selinux_label=process.selinux_label or own.selinux_label,
    )


def _changed(process: Process, options: argparse.Namespace) -> Process:
    user = process.user
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not is_number(uid) or (gid and not is_number(gid)):
            raise UsageError(f"--user {options.user}: give numbers, UID or UID:GID")
        user = User(int(uid), int(gid or 0))
    if options.additional_gids:
        user = replace(user, additional_gids=tuple(options.additional_gids))
    sets = process.capabilities or Capabilities()
    if options.cap:
        more = tuple(options.cap)
        bounding, effective, permitted = (
            tuple(dict.fromkeys((*own, *more))) for own in (sets.bounding, sets.effective, sets.permitted)
        )
        sets = Capabilities(bounding, effective, sets.inheritable, permitted, sets.ambient)
    changed = replace(
        process,
        args=tuple(options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments),
        cwd=options.cwd or process.cwd,
        env=(*process.env, *options.env),
        user=user,
        capabilities=sets,
        terminal=options.tty,
        no_new_privileges=process.no_new_privileges or options.no_new_privs,
    )
    return checked(changed, "exec")


def _cgroup_for(record: Record, hierarchies: Hierarchies) -> str:
    """Return the cgroup for a further process: the container's or, if that delegates controllers on v2, the first
    process's. On v2 a cgroup that delegates controllers takes no process (admin-guide/cgroup-v2.rst, "No Internal
    Process Constraint").
    """
    if hierarchies.v1 or hierarchies.unified is None or not record.cgroup:
        return record.cgroup
    if not (hierarchies.unified / record.cgroup / "cgroup.subtree_control").read_text().strip():
        return record.cgroup
    (line,) = [line for line in Path(f"/proc/{record.pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return line.removeprefix("0::/")


def _report(execution: Execution, pid: int, caller: Caller) -> None:
    """Send a pidfd and write the pid where that is asked for. If one fails, kill the process and raise UsageError."""
    try:
        if execution.pidfd_socket:
            pass_on(os.pidfd_open(pid), caller.path(execution.pidfd_socket), "setns")
        if execution.pid_file:
            with pid_file_refused(execution.pid_file):
                caller.perform(pid_file_step(caller.path(execution.pid_file), pid, caller.pid))
    except UsageError:
        caller.signal_all((pid,), signal.SIGKILL)
        caller.reap(pid)
        raise


def below(cgroup: str, wanted: Sequence[str], hierarchies: Hierarchies) -> dict[Path, str]:
    """Map each hierarchy's mount point to the cgroup that ``--cgroup`` names; one without controllers is for all.

    Raises UsageError for a cgroup that does not exist, for one outside the container's, and for a controller that the
    host does not have.
    """
    cgroups: dict[Path, str] = {}
    for text in wanted:
        names, colon, path = text.rpartition(":")
        mounts = hierarchies.used if not colon else tuple(hierarchies.mount_of(name) for name in names.split(","))
        if len(wanted) > 1 and not colon:
            raise UsageError(f"exec --cgroup {text}: one of several needs its controllers before a colon")
        for mount in mounts:
            if mount is None:
                raise UsageError(f"exec --cgroup {text}: this host has no such controller")
            directory = mount / cgroup / path.lstrip("/")
            if not cgroup or ".." in path.split("/") or not directory.is_dir():
                raise UsageError(f"exec --cgroup {text}: the container has no such cgroup ({directory})")
            cgroups[mount] = str(directory.relative_to(mount))
    return cgroups


def execute(container: StateDir, execution: Execution, caller: Caller, *, warn: Warn) -> Executed:
    """Start a further process in a running container."""
    check_preserved(execution.preserve_fds)
    container.lock(caller)
    record = container.read()
    hierarchies = hierarchies_for(record.cgroup)
    word = status(container, record, hierarchies)
    if word not in (("running", "paused") if execution.ignore_paused else ("running",)):
        hint = "resume it first, or use --ignore-paused" if word == "paused" else ""
        raise UsageError(f"exec in container {container.id}: it is {word}, not running", hint)
    config = config_of(record)
    host = Host.read(caller.pid)
    grantable = host.grantable(config)
    validate_process(execution.process, host, grantable, warn)
    caller.later(*keeping_steps(recall(config.linux.seccomp, container.root / KEPT_FILTERS)))
    cgroup, through_systemd = _cgroup_for(record, hierarchies), joins_through_systemd(record)
    plan = exec_plan(
        execution.process, config, hierarchies, record.pid, "" if through_systemd else cgroup,
        execution.preserve_fds, keeps_groups(config, bool(record.choices.get("rootless"))), grantable,
        below(record.cgroup, execution.cgroups, hierarchies),
    )  # fmt: skip
    if through_systemd:
        plan = in_scope(plan, record)
    if word == "paused":
        caller.later(UNLOCK)  # the command that resumes the container takes the lock, and we wait for that
    elif not execution.detach:
        caller.hold_signals()
    master = -1
    with Launch(plan, {}, caller) as launch:
        try:
            while (message := launch.next()) is not None:
                if message.kind == SYNC:
                    join_scope(record, cgroup, launch.launcher_pid, caller)
                    launch.go()
                elif message.kind == CONSOLE and execution.console_socket:
                    pass_on(message.descriptor, caller.path(execution.console_socket), "terminal")
                elif message.kind == CONSOLE:
                    master = message.descriptor
                elif message.kind == LISTENER:
                    pass_listener(message.descriptor, config, record, launch.known_pid(), "running")
        except StepError as error:
            raise explained(error, execution.process) from error
    _report(execution, launch.pid, caller)
    return Executed(launch.pid, master)
