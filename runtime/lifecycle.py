"""The operations of the OCI runtime-spec on containers that outlive the command that made them."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from runtime.atomic import write_pid_file
from runtime.cgroups import Cgroup, systemd
from runtime.cgroups.placing import all_hierarchies, hierarchies_for, place_cgroup, remove_cgroup
from runtime.config import bundle as bundles
from runtime.config.decode import Warn, decode
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.types import Config
from runtime.config.validate import Host, validate
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.hooks import Surroundings, pid_inside, run_hooks, surroundings_inside
from runtime.known import leave
from runtime.launcher import Launch, StepError, not_executed, receive, send_go
from runtime.launcher.messages import CONSOLE, FAILED, LISTENER, READY, SYNC
from runtime.mappings import may_make_nodes, write_maps
from runtime.passing import check_preserved, pass_listener, pass_on, passed_descriptors
from runtime.plan import steps as s
from runtime.plan.bundle import (
    CREATED,
    PLACED,
    RECORDED,
    Choices,
    bundle_plan,
)
from runtime.plan.execution import keeps_groups
from runtime.plan.process import LABELS, label_refused
from runtime.processes import ProcessGone, executed, open_pidfd, send_signal, wait_exit
from runtime.scoped import complete_scope, in_scope, scope_of, start_scope
from runtime.seccomp.kept import KEPT_FILTERS, recall
from runtime.state import Damaged, Place, Record, oci_state, status


class PoststartError(TestbedError):
    """A hook failed that runs when the program does already."""


class Creation(Struct, frozen=True):
    """How ``create`` is asked for: its bundle and its flags; ``console_socket`` None is one that is not known yet.
    ``listen_fds`` and ``notify_socket`` are a service manager's."""

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
        """How many descriptors above the standard ones go on to the container."""
        return self.listen_fds + self.preserve_fds


def checked(place: Place, creation: Creation, wants_systemd: bool, warn: Warn) -> tuple[Config, Record]:
    """The bundle's configuration, checked, and the record of a container that is not there yet."""
    bundle = creation.bundle.resolve()
    text = bundles.read_text(bundle / creation.config)
    config = bundles.parse_config(text, bundle / creation.config, warn)
    host = Host.read()
    validate(config, host, warn)
    check_preserved(creation.preserve_fds, creation.listen_fds)
    rootfs = (bundle / config.root.path).resolve()
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
    placement = place_cgroup(config, place.id, wants_systemd)
    limits = replace(config.linux.resources or Resources(), devices=())
    if not placement.cgroup and limits != Resources():
        raise PrerequisiteError(
            f"linux.resources: this user may not write to the host's cgroups: {placement.why}",
            "run as root, log in where systemd manages users (`loginctl enable-linger`), or let linux.cgroupsPath name"
            " a place below a cgroup that belongs to this user",
        )
    choices = Choices(
        str(rootfs),
        placement.cgroup,
        creation.passed_fds,
        creation.pivot,
        f"_ses.{place.id}" if creation.keyring else "",
        rootless=rootless,
        scope=placement.scope,
        mapped=not rootless and systemd.is_ordinary(),
        grantable=host.grantable(config),
        listen_fds=creation.listen_fds,
        notify=str(place.notify_directory) if creation.notify_socket else "",
        host_nodes="user" in {entry.type for entry in config.linux.namespaces} and (rootless or not may_make_nodes()),
    )
    record = Record(
        place.id, str(bundle), str(rootfs), placement.cgroup, text, str(os.geteuid()),
        choices=asdict(choices), annotations=dict(config.annotations),
    )  # fmt: skip
    return config, record


def plan_of(config: Config, record: Record) -> s.Plan:
    """The plan that creates the container of a record."""
    try:
        choices = msgspec.convert(record.choices, Choices)
    except msgspec.ValidationError as error:
        raise Damaged(record.id, error) from error
    return in_scope(bundle_plan(config, hierarchies_for(record.cgroup), record.bundle, choices), record)


def config_of(record: Record) -> Config:
    """The configuration that a container was made from."""
    try:
        return decode(Config, json.loads(record.config), "")
    except (ValueError, RecursionError) as error:
        raise Damaged(record.id, error) from error


def create(place: Place, creation: Creation, *, wants_systemd: bool, warn: Warn) -> Record:
    """Make the container up to the point where its process waits to be started.

    Raises TestbedError; nothing of it is left then.
    """
    config, record = checked(place, creation, wants_systemd, warn)
    recall(config.linux.seccomp, place.root / KEPT_FILTERS)
    scope = scope_of(record)
    if wants_systemd and not scope:
        warn(f"no scope of systemd's: {systemd.missing(all_hierarchies())}; its directories are made as they would be")
    plan = plan_of(config, record)
    place.claim()
    with ExitStack() as undo:
        undo.callback(place.remove)
        with place.locked():
            place.write(record)
            if creation.notify_socket:
                place.notify_directory.mkdir()
                place.notify_directory.chmod(0o755)  # for any user inside, whatever our umask
            cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
            leave(place, config, record, cgroup.found)
            if record.cgroup:
                if cgroup.exists() and cgroup.pids():
                    raise UsageError(f"cgroup {record.cgroup}: there are processes in it", "take another cgroupsPath")
                undo.callback(remove_cgroup, cgroup, scope)
                if not scope:
                    cgroup.make(delegate=False)
            with place.listen() as listening:
                record = _create(place, record, config, plan, creation, listening.fileno())
        undo.pop_all()
    return record


def _create(place: Place, record: Record, config: Config, plan: s.Plan, creation: Creation, listening: int) -> Record:
    with Launch(plan, {**passed_descriptors(creation.passed_fds), s.LISTEN_FD: listening}) as launch:
        try:
            while (message := launch.next()) is not None and message.kind != READY:
                if message.kind == SYNC and message.number == PLACED:
                    start_scope(config, record, launch.launcher_pid)
                    launch.go()
                elif message.kind == SYNC and message.number == RECORDED:
                    pid = launch.known_pid()
                    complete_scope(config, record)
                    write_maps(pid, config)
                    if config.linux.net_devices:
                        from runtime.netdevices import move_devices

                        move_devices(config.linux.net_devices, pid)
                    record = place.write_process(record, pid)
                    launch.go()
                elif message.kind == SYNC and message.number == CREATED:
                    _hooks_of_create(record, config)
                    launch.go()
                elif message.kind == CONSOLE:
                    pass_on(message.descriptor, creation.console_socket or "", "terminal")
                elif message.kind == LISTENER:
                    pass_listener(message.descriptor, config, record, record.pid, "creating")
            if message is None:
                hint = "its memory limit may be too low for the kernel's own part of it"
                raise TestbedError(f"create container {place.id}: its process was killed while it was made", hint)
            if creation.pidfd_socket:
                pass_on(os.pidfd_open(record.pid), creation.pidfd_socket, "standard")
            if creation.pid_file:
                write_pid_file(creation.pid_file, record.pid)
        except StepError as error:
            raise explained(error, config.process) from error
        except BaseException:
            if launch.pid:
                with suppress(ProcessLookupError):
                    os.kill(launch.pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(launch.pid, 0)
            raise
    return record


def explained(error: StepError, process: Process | None) -> TestbedError:
    """A failed exec in the words that engines look for."""
    if isinstance(error.failed, (s.CheckExecutable, s.Exec)) and process is not None:
        name, why = process.args[0], os.strerror(error.errno)
        if "/" in name:
            return UsageError(f"exec: {name!r}: {why.lower()}")  # as Go spells errors
        return UsageError(f"executable file `{name}` not found in $PATH: {why}")
    if isinstance(error.failed, s.Mknod) and error.errno == errno.EEXIST:
        hint = "take it out of the root file system, or mount a tmpfs on /dev"
        return UsageError(f"{error}: what is there is no device of this kind", hint)
    if isinstance(error.failed, s.Write) and error.failed.path in LABELS and process is not None:
        return label_refused(process, error.errno)
    return error


def _outside(record: Record) -> Surroundings:
    """The host's; the bundle may be gone by the time that the container is."""
    return Surroundings(record.bundle if os.path.isdir(record.bundle) else "/")


def _inside(record: Record, config: Config, directory: str, environment: tuple[str, ...] | None) -> Surroundings:
    keep_groups = keeps_groups(config, bool(record.choices.get("rootless")))
    return surroundings_inside(record.pid, config, directory, environment, keep_groups=keep_groups)


def _hooks_of_create(record: Record, config: Config) -> None:
    """Those that run before the root is entered. The last kind runs in the container's namespaces, where ``rootfs`` is
    the container's root already."""
    hooks, state = config.hooks, oci_state(record, "creating")
    run_hooks("prestart", hooks.prestart, state, _outside(record))
    run_hooks("createRuntime", hooks.create_runtime, state, _outside(record))
    if hooks.create_container:
        state["pid"] = pid_inside(record.pid)
        run_hooks("createContainer", hooks.create_container, state, _inside(record, config, record.rootfs, None))


def _hooks_of_start(record: Record, config: Config) -> None:
    """Those that run in the container, before its program does and with its environment."""
    assert config.process is not None
    state = {**oci_state(record, "created"), "pid": pid_inside(record.pid)}
    surroundings = _inside(record, config, "/", config.process.env)
    run_hooks("startContainer", config.hooks.start_container, state, surroundings)


def start(place: Place, *, warn: Warn) -> None:
    """Let the process of a created container execute its program. Raises TestbedError when it cannot, or when a hook
    fails: one of those that run afterwards ends the container (runtime-spec 1.3, Lifecycle, step 9)."""
    try:
        _start(place)
    except PoststartError:
        delete(place, force=True, warn=warn)
        raise


def _start(place: Place) -> None:
    with place.locked():
        record = place.read()
        config = config_of(record)
        word = status(place, record, hierarchies_for(record.cgroup))
        if word != "created":
            raise UsageError(f"start container {place.id}: it is {word}, not created")
        with place.connect() as channel:
            send_go(channel)
            _follow(channel, record, config)
        try:
            run_hooks("poststart", config.hooks.poststart, oci_state(record, "running"), _outside(record))
        except TestbedError as error:
            raise PoststartError(f"{error.message}; the container is removed", error.hint) from error


def _follow(channel: socket.socket, record: Record, config: Config) -> None:
    while (message := receive(channel)) is not None:
        if message.kind == SYNC:
            _hooks_of_start(record, config)
            send_go(channel)
        elif message.kind == LISTENER:
            pass_listener(message.descriptor, config, record, record.pid, "created")
        elif message.kind == FAILED:
            raise explained(StepError(plan_of(config, record), message.number, message.value), config.process)
    if not executed(record.pid, record.start_time):
        raise not_executed()


def explain_start(place: Place, step: int, errno: int) -> None:
    """Raise what ``start`` would have raised, had it not been the launcher that was told of the step that failed."""
    record = place.read()
    config = config_of(record)
    if step < 0:
        raise not_executed()
    plan = plan_of(config, record)
    if step >= len(list(plan.steps())) or errno >= 1 << 31:
        raise UsageError(f"start container {place.id}: step {step} failed with error {errno}")
    raise explained(StepError(plan, step, errno), config.process)


def kill(place: Place, number: int, *, everything: bool) -> None:
    """Signal the first process, or all; what is frozen cannot die on cgroup v1, so a KILL thaws it.

    Raises UsageError for one that has ended.
    """
    record = place.read()
    _kill(place, record, number, everything=everything)
    if number == signal.SIGKILL and record.cgroup:
        found = hierarchies_for(record.cgroup)
        with suppress(TestbedError, OSError):
            if "freezer" in found.v1:
                Cgroup(record.cgroup, found).freeze(False)


def _kill(place: Place, record: Record, number: int, *, everything: bool) -> None:
    if everything and record.cgroup:
        cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
        if number == signal.SIGKILL and cgroup.kill_at_once():
            return
        for pid in cgroup.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return
    try:
        pidfd = open_pidfd(record.pid, record.start_time)
    except ProcessGone as error:
        raise UsageError(f"kill container {place.id}: container not running") from error
    try:
        send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _end(pid: int, start_time: int) -> None:
    """Kill a process and wait for its end. Raises ProcessGone."""
    pidfd = open_pidfd(pid, start_time)
    try:
        send_signal(pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        wait_exit(pidfd, 10)
    finally:
        os.close(pidfd)


def delete(place: Place, *, force: bool, warn: Warn) -> None:
    """Remove a stopped container, or with ``force`` any: its processes, cgroup and state, then run poststop hooks.

    Raises UsageError, with ``force`` Busy when another command works on it that does not end when the processes do.
    """
    if force:
        from runtime.force import locked_by_force
    with locked_by_force(place) if force else place.locked():
        try:
            record = place.read()
        except UsageError:
            if not force:
                raise
            with suppress(Damaged, ProcessGone):
                _end(*place.process())
            place.remove()  # it was killed before there was anything to record, or that is damaged
            return
        found = hierarchies_for(record.cgroup)
        word = status(place, record, found)
        if word not in ("stopped",) and not force:
            raise UsageError(f"delete container {place.id}: it is {word}", "kill it first, or use --force")
        if word != "stopped":
            if record.cgroup:
                with suppress(TestbedError, OSError):
                    Cgroup(record.cgroup, found).freeze(False)
            with suppress(ProcessGone):
                _end(record.pid, record.start_time)
        if record.cgroup:
            remove_cgroup(Cgroup(record.cgroup, found), scope_of(record))
        with suppress(UsageError, ValueError):
            hooks = config_of(record).hooks.poststop
            run_hooks("poststop", hooks, oci_state(record, "stopped"), _outside(record), warn=warn)
        place.remove()


def pause(place: Place, frozen: bool) -> None:
    """Freeze all processes of a running container, or thaw them."""
    with place.locked():
        record = place.read()
        word = status(place, record, hierarchies_for(record.cgroup))
        if word not in (("running", "created") if frozen else ("paused",)):
            raise UsageError(f"{'pause' if frozen else 'resume'} container {place.id}: it is {word}")
        if not record.cgroup:
            raise PrerequisiteError(f"pause container {place.id}: it has no cgroup", "run as root")
        Cgroup(record.cgroup, hierarchies_for(record.cgroup)).freeze(frozen)
