"""Make a container up to the point where its process waits for ``start``: check its bundle, plan it, perform that."""

from __future__ import annotations

import errno
import json
import os
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from runtime.cgroups import Cgroup, systemd
from runtime.cgroups.placing import all_hierarchies, hierarchies_for, place_cgroup
from runtime.config import bundle as bundles
from runtime.config.decode import Warn, decode
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.types import Config
from runtime.config.validate import Host, validate
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.launcher import Launch, StepError
from runtime.launcher.messages import CONSOLE, LISTENER, READY, SYNC
from runtime.oci.caller import Caller, CallerGone
from runtime.oci.cgroup import make_cgroup, make_steps
from runtime.oci.filters import KEPT_FILTERS, keeping_steps, recall
from runtime.oci.hooks import Surroundings, pid_inside, run_hooks, surroundings_inside
from runtime.oci.invocation import run_job
from runtime.oci.mappings import may_make_nodes, write_maps
from runtime.oci.passing import check_preserved, pass_listener, pass_on, pid_file_refused, pid_file_step
from runtime.oci.scoped import complete_scope, in_scope, remove_container_cgroup, scope_of, start_scope
from runtime.oci.state import Damaged, Record, StateDir, oci_state
from runtime.plan import steps as s
from runtime.plan.bundle import CREATED, PLACED, RECORDED, Choices, bundle_plan
from runtime.plan.execution import keeps_groups
from runtime.plan.process import LABELS, label_refused
from runtime.processes import start_time


class Creation(Struct, frozen=True):
    """The bundle and the flags of ``create``. If ``console_socket`` is None, the caller relays the terminal;
    ``listen_fds`` and ``notify_socket`` come from a service manager."""

    bundle: Path
    console_socket: str | None = ""
    pid_file: str = ""
    preserve_fds: int = 0
    pivot: bool = True
    keyring: bool = True
    config: str = "config.json"
    pidfd_socket: str = ""
    listen_fds: int = 0
    notify_socket: str = ""

    @property
    def passed_fds(self) -> int:
        """Return how many descriptors above the standard ones are passed on to the container."""
        return self.listen_fds + self.preserve_fds


class Created(Struct, frozen=True):
    """A container that was made, and the master side of its terminal, which we have to close, or -1 if we have none."""

    record: Record
    master: int = -1


def checked(
    container: StateDir, creation: Creation, wants_systemd: bool, caller: Caller, warn: Warn
) -> tuple[Config, Record]:
    """Check the bundle's configuration; return it and the record of the container, which does not exist yet."""
    bundle = Path(os.path.realpath(caller.path(creation.bundle)))
    text = bundles.read_text(bundle / creation.config)
    config = bundles.parse_config(text, bundle / creation.config, warn)
    host = Host.read(caller.pid)
    validate(config, host, warn)
    check_preserved(creation.preserve_fds, creation.listen_fds)
    rootfs = Path(os.path.realpath(bundle / config.root.path))
    if not rootfs.is_dir():
        raise UsageError(f"config.json: root.path: {rootfs} is not a directory")
    for directory in (bundle, rootfs):
        if any("\ud800" <= character <= "\udfff" for character in str(directory)):
            raise UsageError(f"{directory}: the path of a container's directory must be UTF-8")
    if config.process and config.process.terminal and creation.console_socket == "":
        raise UsageError("config.json: process.terminal: needs --console-socket, where the terminal goes")
    if config.process and not config.process.terminal and creation.console_socket:
        raise UsageError("--console-socket: the process wants no terminal (process.terminal is not true)")
    rootless = os.geteuid() != 0
    placement = place_cgroup(config, container.id, wants_systemd, caller.bus, caller.pid)
    limits = replace(config.linux.resources or Resources(), devices=())
    if not placement.cgroup and limits != Resources():
        raise PrerequisiteError(
            f"linux.resources: this user may not write to the host's cgroups: {placement.why}",
            "run as root, log in where systemd manages users (`loginctl enable-linger`), or let linux.cgroupsPath name"
            " a place below a cgroup that belongs to this user",
        )
    mapped = "user" in {entry.type for entry in config.linux.namespaces}
    choices = Choices(
        str(rootfs),
        placement.cgroup,
        creation.passed_fds,
        creation.pivot,
        f"_ses.{container.id}" if creation.keyring else "",
        rootless=rootless,
        scope=placement.scope,
        mapped=not rootless and systemd.is_unprivileged(),
        grantable=host.grantable(config),
        listen_fds=creation.listen_fds,
        notify=str(container.notify_directory) if creation.notify_socket else "",
        host_nodes=mapped and (rootless or not may_make_nodes(host.capabilities)),
    )
    record = Record(
        container.id, str(bundle), str(rootfs), placement.cgroup, text, str(os.geteuid()),
        choices=asdict(choices), annotations=dict(config.annotations),
    )  # fmt: skip
    return config, record


def plan_of(config: Config, record: Record) -> s.Plan:
    """Return the plan that creates the container of a record. Raises Damaged."""
    try:
        choices = msgspec.convert(record.choices, Choices)
    except msgspec.ValidationError as error:
        raise Damaged(record.id, error) from error
    return in_scope(bundle_plan(config, hierarchies_for(record.cgroup), record.bundle, choices), record)


@lru_cache(maxsize=32)
def _decoded(text: str) -> Config:
    config: Config = decode(Config, json.loads(text), "")
    return config


def config_of(record: Record) -> Config:
    """Return the configuration that a container was made from. Raises Damaged."""
    try:
        return _decoded(record.config)
    except (ValueError, RecursionError) as error:
        raise Damaged(record.id, error) from error


def create(
    container: StateDir, creation: Creation, caller: Caller, undo: tuple[str, ...], *, wants_systemd: bool, warn: Warn
) -> Created:
    """Make the container up to the point where its process waits to be started.

    ``undo`` holds the arguments that delete the container; the client makes a request with them if this process ends
    before the command does. Raises TestbedError, and then nothing of the container is left.
    """
    container.check_free()
    config, record = checked(container, creation, wants_systemd, caller, warn)
    unkept = recall(config.linux.seccomp, container.root / KEPT_FILTERS)
    if wants_systemd and not scope_of(record):
        why = systemd.missing(all_hierarchies(), caller.bus)
        warn(f"no scope of systemd's: {why}; its directories are made as they would be")
    plan = plan_of(config, record)
    cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
    if record.cgroup and cgroup.exists() and cgroup.pids():
        raise UsageError(f"cgroup {record.cgroup}: there are processes in it", "take another cgroupsPath")
    making = make_steps(cgroup) if record.cgroup and not scope_of(record) else ()
    container.claim(caller, undo)
    caller.later(*keeping_steps(unkept))
    caller.later(container.record_step(record), container.listen_step())
    if creation.notify_socket:
        caller.later(s.Mkdir(str(container.notify_directory)))  # any user inside may use it, whatever the umask
    try:
        if making:
            make_cgroup(cgroup, making, caller)
        return _create(container, record, config, plan, creation, caller)
    except CallerGone:
        raise
    except BaseException:
        if record.cgroup:
            with suppress(TestbedError):
                remove_container_cgroup(record, caller)
        caller.attempt(*container.removal_steps())
        caller.undo = ()
        raise


def _create(
    container: StateDir, record: Record, config: Config, plan: s.Plan, creation: Creation, caller: Caller
) -> Created:
    launch = Launch(plan, {}, caller, {s.LISTEN_FD: s.LISTENING_FD})
    try:
        with launch:
            caller.later(s.Close(s.LISTENING_FD))  # else start could wait at the socket of a process that is gone
            made = _follow_creation(launch, container, record, config, creation, caller)
            record = made.record
            if creation.pidfd_socket:
                pass_on(os.pidfd_open(record.pid), caller.path(creation.pidfd_socket), "standard")
            if creation.pid_file:
                with pid_file_refused(creation.pid_file):
                    caller.perform(pid_file_step(caller.path(creation.pid_file), record.pid, caller.pid))
    except StepError as error:
        raise explained(error, config.process) from error
    except CallerGone:
        raise
    except BaseException:
        if launch.pid:
            caller.signal_all((launch.pid,), signal.SIGKILL)
            caller.reap(launch.pid)
        raise
    return made


def _follow_creation(
    launch: Launch, container: StateDir, record: Record, config: Config, creation: Creation, caller: Caller
) -> Created:
    master = -1
    while (message := launch.next()) is not None and message.kind != READY:
        if message.kind == SYNC and message.number == PLACED:
            start_scope(config, record, launch.launcher_pid, caller)
            launch.go()
        elif message.kind == SYNC and message.number == RECORDED:
            pid = launch.known_pid()
            complete_scope(config, record, caller)
            write_maps(pid, config, caller)
            if config.linux.net_devices:
                run_job(caller, "devices", msgspec.json.encode(config.linux.net_devices).decode(), str(pid))
            record = replace(record, pid=pid, start_time=start_time(pid))
            caller.perform(container.process_step(record))
            launch.go()
        elif message.kind == SYNC and message.number == CREATED:
            _hooks_of_create(record, config, caller)
            launch.go()
        elif message.kind == CONSOLE and creation.console_socket:
            pass_on(message.descriptor, caller.path(creation.console_socket), "terminal")
        elif message.kind == CONSOLE:
            master = message.descriptor
        elif message.kind == LISTENER:
            pass_listener(message.descriptor, config, record, record.pid, "creating")
    if message is None:
        hint = "its memory limit may be too low for the kernel's own part of it"
        raise TestbedError(f"create container {container.id}: its process was killed while it was made", hint)
    return Created(record, master)


def explained(error: StepError, process: Process | None) -> TestbedError:
    """Return the error for a failed step; for a failed exec it has the wording that engines look for."""
    if isinstance(error.failed, (s.CheckExecutable, s.Exec)) and process is not None:
        name, why = process.args[0], os.strerror(error.errno)
        if "/" in name:
            return UsageError(f"exec: {name!r}: {why.lower()}")  # Go writes errors in lower case
        return UsageError(f"executable file `{name}` not found in $PATH: {why}")
    if isinstance(error.failed, s.Mknod) and error.errno == errno.EEXIST:
        hint = "take it out of the root file system, or mount a tmpfs on /dev"
        return UsageError(f"{error}: what is there is no device of this kind", hint)
    if isinstance(error.failed, s.Write) and error.failed.path in LABELS and process is not None:
        return label_refused(process, error.errno)
    return error


def host_surroundings(record: Record) -> Surroundings:
    """Return the host's surroundings for hooks; the bundle may have been removed before the container."""
    return Surroundings(record.bundle if os.path.isdir(record.bundle) else "/")


def container_surroundings(
    record: Record, config: Config, directory: str, environment: tuple[str, ...] | None
) -> Surroundings:
    """Return a container's own surroundings for hooks: its namespaces, and the directory and environment there."""
    keep_groups = keeps_groups(config, bool(record.choices.get("rootless")))
    return surroundings_inside(record.pid, config, directory, environment, keep_groups=keep_groups)


def _hooks_of_create(record: Record, config: Config, caller: Caller) -> None:
    """Run the hooks that precede pivot_root. The last kind, createContainer, runs in the container's namespaces, where
    ``rootfs`` is already the container's root."""
    hooks, state = config.hooks, oci_state(record, "creating")
    run_hooks("prestart", hooks.prestart, state, caller, host_surroundings(record))
    run_hooks("createRuntime", hooks.create_runtime, state, caller, host_surroundings(record))
    if hooks.create_container:
        state["pid"] = pid_inside(record.pid)
        inside = container_surroundings(record, config, record.rootfs, None)
        run_hooks("createContainer", hooks.create_container, state, caller, inside)
