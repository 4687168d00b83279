"""A further process in a running container."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from runtime.atomic import write_pid_file
from runtime.cgroups import Hierarchies
from runtime.cgroups.placing import hierarchies_for
from runtime.config.decode import Warn
from runtime.config.process import Process
from runtime.config.validate import Host, validate_process
from runtime.errors import UsageError
from runtime.launcher import CONSOLE, LISTENER, SYNC, Launch, StepError
from runtime.lifecycle import check_preserved, config_of, explained, kept, pass_listener, pass_on
from runtime.plan.bundle import exec_plan
from runtime.processes import pass_signals_on, waited
from runtime.scoped import in_scope, join_scope, joins_through_systemd
from runtime.seccomp.kept import KEPT_FILTERS, recall
from runtime.state import Place, Record, status


class Execution(Struct, frozen=True):
    """How ``exec`` is asked for: what to start, where its terminal goes, and whether to wait for it."""

    process: Process
    console_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0
    detach: bool = False


def _cgroup_for(record: Record, found: Hierarchies) -> str:
    """The cgroup that a further process goes into: the container's, or, where that has cgroups of its own below it, the
    first process's. On v2 a cgroup that passes controllers on takes no process (admin-guide/cgroup-v2.rst, "No Internal
    Process Constraint").
    """
    if found.v1 or found.unified is None or not record.cgroup:
        return record.cgroup
    if not (found.unified / record.cgroup / "cgroup.subtree_control").read_text().strip():
        return record.cgroup
    (line,) = [line for line in Path(f"/proc/{record.pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return line.removeprefix("0::/")


def execute(place: Place, execution: Execution, relay: Callable[[int], None], *, warn: Warn) -> int:
    """Start a further process in a running container; its exit status, or 0 when detached."""
    check_preserved(execution.preserve_fds)
    with place.locked():
        record = place.read()
        found = hierarchies_for(record.cgroup)
        word = status(place, record, found)
        if word != "running":
            raise UsageError(f"exec in container {place.id}: it is {word}, not running")
        config = config_of(record)
        host = Host.read()
        grantable = host.grantable(config)
        validate_process(execution.process, host, grantable, warn)
        recall(config.linux.seccomp, place.root / KEPT_FILTERS)
        cgroup, through_systemd = _cgroup_for(record, found), joins_through_systemd(record)
        plan = exec_plan(
            execution.process, config, found, record.pid, "" if through_systemd else cgroup,
            execution.preserve_fds, bool(record.choices.get("rootless")), grantable,
        )  # fmt: skip
        if through_systemd:
            plan = in_scope(plan, record)
        master = -1
        with Launch(plan, kept(execution.preserve_fds)) as launch:
            try:
                while (message := launch.next()) is not None:
                    if message.kind == SYNC:
                        join_scope(record, cgroup, launch.launcher_pid)
                        launch.go()
                    elif message.kind == CONSOLE and execution.console_socket:
                        pass_on(message.descriptor, execution.console_socket, "terminal")
                    elif message.kind == CONSOLE:
                        master = message.descriptor
                    elif message.kind == LISTENER:
                        pass_listener(message.descriptor, config, record)
            except StepError as error:
                raise explained(error, execution.process) from error
        if execution.pid_file:
            try:
                write_pid_file(execution.pid_file, launch.pid)
            except UsageError:
                os.kill(launch.pid, signal.SIGKILL)
                os.waitpid(launch.pid, 0)
                raise
    if execution.detach:
        return 0
    pass_signals_on(launch.pid)
    if master >= 0:
        relay(master)
    return waited(launch.pid)
