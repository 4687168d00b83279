"""The operations of the OCI runtime-spec on containers that outlive the command that made them."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from runtime.atomic import write_pid_file
from runtime.cgroups import Cgroup, systemd
from runtime.cgroups.placing import all_hierarchies, hierarchies_for, place_cgroup, remove_cgroup
from runtime.cgroups.resources import settings
from runtime.config import bundle as bundles
from runtime.config.decode import Warn, decode
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.types import Config, Hook
from runtime.config.validate import Host, validate
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.hooks import run_hooks
from runtime.known import leave
from runtime.launcher import CONSOLE, FAILED, LISTENER, READY, SYNC, Launch, StepError, receive, send_go
from runtime.mappings import write_maps
from runtime.plan import steps as s
from runtime.plan.bundle import (
    CREATED,
    NAMESPACE_FILES,
    NAMESPACE_FLAGS,
    PLACED,
    RECORDED,
    Choices,
    bundle_plan,
)
from runtime.plan.process import LABELS, label_refused
from runtime.processes import ProcessGone, open_pidfd, send_signal, wait_exit
from runtime.scoped import in_scope, scope_of, start_scope, update_scope
from runtime.seccomp.kept import KEPT_FILTERS, recall
from runtime.state import Damaged, Place, Record, oci_state, status

_MAX_PRESERVED = 90  # above them are the plan's own descriptors


class Creation(Struct, frozen=True):
    """How ``create`` is asked for: its bundle and its flags; ``console_socket`` None is one that is not known yet."""

    bundle: Path
    console_socket: str | None = ""
    pid_file: str = ""
    preserve_fds: int = 0
    pivot: bool = True
    keyring: bool = True


def checked(place: Place, creation: Creation, wants_systemd: bool, warn: Warn) -> tuple[Config, Record]:
    """The bundle's configuration, checked, and the record of a container that is not there yet."""
    bundle = creation.bundle.resolve()
    path = bundle / "config.json"
    text = bundles.read_text(path)
    config = bundles.parse_config(text, path, warn)
    host = Host.read()
    validate(config, host, warn)
    check_preserved(creation.preserve_fds)
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
        creation.preserve_fds,
        creation.pivot,
        f"_ses.{place.id}" if creation.keyring else "",
        rootless=rootless,
        scope=placement.scope,
        mapped=not rootless and systemd.is_ordinary(),
        grantable=host.grantable(config),
    )
    record = Record(
        place.id, str(bundle), str(rootfs), placement.cgroup, text, str(os.geteuid()),
        choices=asdict(choices), annotations=dict(config.annotations),
    )  # fmt: skip
    return config, record


def check_preserved(number: int) -> None:
    """Raise UsageError for more descriptors than are passed on."""
    if not 0 <= number <= _MAX_PRESERVED:
        raise UsageError(f"--preserve-fds {number}: at most {_MAX_PRESERVED} are passed on")


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
            cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
            leave(place, config, record, cgroup.found)
            if record.cgroup:
                if cgroup.exists() and cgroup.pids():
                    raise UsageError(f"cgroup {record.cgroup}: there are processes in it", "take another cgroupsPath")
                undo.callback(remove_cgroup, cgroup, scope)
                if not scope:
                    cgroup.make(delegate=False)
            with place.listen() as listening:
                record = _create(place, record, config, plan, creation, listening.fileno(), warn)
        undo.pop_all()
    return record


def _create(
    place: Place, record: Record, config: Config, plan: s.Plan, creation: Creation, listening: int, warn: Warn
) -> Record:
    with Launch(plan, {**kept(creation.preserve_fds), s.LISTEN_FD: listening}) as launch:
        try:
            while (message := launch.next()) is not None and message.kind != READY:
                if message.kind == SYNC and message.number == PLACED:
                    start_scope(config, record, launch.launcher_pid)
                    launch.go()
                elif message.kind == SYNC and message.number == RECORDED:
                    pid = launch.known_pid()
                    write_maps(pid, config)
                    if config.linux.net_devices:
                        from runtime.netdevices import move_devices

                        move_devices(config.linux.net_devices, pid)
                    record = place.write_process(record, pid)
                    launch.go()
                elif message.kind == SYNC and message.number == CREATED:
                    state = oci_state(record, "creating")
                    for kind, hooks in (
                        ("prestart", config.hooks.prestart),
                        ("createRuntime", config.hooks.create_runtime),
                    ):
                        run_hooks(kind, hooks, state, warn=warn)
                    run_inside("createContainer", config.hooks.create_container, state, record.pid, config)
                    launch.go()
                elif message.kind == CONSOLE:
                    pass_on(message.descriptor, creation.console_socket or "", "terminal")
                elif message.kind == LISTENER:
                    pass_listener(message.descriptor, config, record)
            if message is None:
                hint = "its memory limit may be too low for the kernel's own part of it"
                raise TestbedError(f"create container {place.id}: its process was killed while it was made", hint)
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


def kept(preserve_fds: int) -> dict[int, int]:
    """The standard streams, and of the descriptors above them those that the caller left open for us to pass on."""
    open_ones = {int(name) for name in os.listdir("/proc/self/fd")}
    return {n: n for n in range(3 + preserve_fds) if n < 3 or n in open_ones and _inherited(n)}


def _inherited(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the one that listed the directory
        return False


def explained(error: StepError, process: Process | None) -> TestbedError:
    """A failed exec in the words that engines look for."""
    if isinstance(error.failed, (s.LookUp, s.Exec)) and process is not None:
        name, why = process.args[0], os.strerror(error.errno)
        if "/" in name:
            return UsageError(f"exec: {name!r}: {why.lower()}")  # as Go spells errors
        return UsageError(f"executable file `{name}` not found in $PATH: {why}")
    if isinstance(error.failed, s.Write) and error.failed.path in LABELS and process is not None:
        return label_refused(process, error.errno)
    return error


def pass_on(descriptor: int, path: str, name: str) -> None:
    from runtime.console import hand_over

    try:
        hand_over(descriptor, path, name)
    finally:
        os.close(descriptor)


def pass_listener(descriptor: int, config: Config, record: Record) -> None:
    """Send a seccomp listener with the state that the runtime-spec describes ("Container Process State")."""
    assert config.linux.seccomp is not None
    state = {
        "ociVersion": config.oci_version,
        "fds": ["seccompFd"],
        "pid": record.pid,
        "metadata": config.linux.seccomp.listener_metadata,
        "state": oci_state(record, "creating"),
    }
    pass_on(descriptor, config.linux.seccomp.listener_path, json.dumps(state))


def run_inside(kind: str, hooks: Sequence[Hook], state: dict[str, object], pid: int, config: Config) -> None:
    """Run hooks in the namespaces of the process ``pid``. Raises UsageError when one fails."""
    joins = [
        s.JoinNamespace(f"/proc/{pid}/ns/{NAMESPACE_FILES[name]}", flag)
        for name, flag in NAMESPACE_FLAGS.items()
        if name in {namespace.type for namespace in config.linux.namespaces}
    ]
    for index, hook in enumerate(hooks):
        name = f"{kind} hook {index} ({hook.path})"
        run = s.Exec((hook.path, *hook.args[1:]), hook.env)
        plan = s.Plan((s.CloseOnExec(3), run), (s.Undumpable(), *joins))
        with ExitStack() as opened:
            stdin = os.memfd_create("state", os.MFD_CLOEXEC)
            opened.callback(os.close, stdin)
            os.write(stdin, json.dumps(state).encode())
            os.lseek(stdin, 0, os.SEEK_SET)
            with Launch(plan, {0: stdin, 1: 2, 2: 2}) as launch:
                launch.next()
            pidfd = os.pidfd_open(launch.pid)
            opened.callback(os.close, pidfd)
            if not wait_exit(pidfd, hook.timeout):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.waitpid(launch.pid, 0)
                raise UsageError(f"{name}: not done after {hook.timeout} s, killed")
            code = os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1])
            if code != 0:
                raise UsageError(f"{name}: exit status {code}")


def start(place: Place, *, warn: Warn) -> None:
    """Let the process of a created container execute its program. Raises TestbedError when it cannot."""
    with place.locked():
        record = place.read()
        config = config_of(record)
        word = status(place, record, hierarchies_for(record.cgroup))
        if word != "created":
            raise UsageError(f"start container {place.id}: it is {word}, not created")
        with place.connect() as channel:
            send_go(channel)
            _follow(channel, record, config)
        run_hooks("poststart", config.hooks.poststart, oci_state(record, "running"), warn=warn)


def _follow(channel: socket.socket, record: Record, config: Config) -> None:
    while (message := receive(channel)) is not None:
        if message.kind == SYNC:
            run_inside("startContainer", config.hooks.start_container, oci_state(record, "created"), record.pid, config)
            send_go(channel)
        elif message.kind == LISTENER:
            pass_listener(message.descriptor, config, record)
        elif message.kind == FAILED:
            raise explained(StepError(plan_of(config, record), message.number, message.value), config.process)


def explain_start(place: Place, step: int, errno: int) -> None:
    """Raise what ``start`` would have raised, had it not been the launcher that was told of the step that failed."""
    record = place.read()
    config = config_of(record)
    plan = plan_of(config, record)
    if step >= len(list(plan.steps())) or errno >= 1 << 31:
        raise UsageError(f"start container {place.id}: step {step} failed with error {errno}")
    raise explained(StepError(plan, step, errno), config.process)


def kill(place: Place, number: int, *, everything: bool) -> None:
    """Signal the first process, or all. Raises UsageError for one that has ended."""
    record = place.read()
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
    """Remove a stopped container, or with ``force`` any: its processes, cgroup and state, then run poststop hooks."""
    with place.locked():
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
            run_hooks("poststop", config_of(record).hooks.poststop, oci_state(record, "stopped"), warn=warn)
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


def update(place: Place, resources: Resources) -> None:
    """Change the limits of a container. Raises UsageError for one that the kernel refuses; those before it are set."""
    if resources.devices:
        raise UsageError("update: resources.devices: device rules do not change while a container is there")
    with place.locked():
        record = place.read()
        found = hierarchies_for(record.cgroup)
        update_scope(record, resources)
        refused: list[tuple[Path, str]] = []
        for controller, file, value in settings(found, resources):
            mount = found.mount_of(controller)
            if mount is None:
                raise PrerequisiteError(f"{file} = {value}: this host has no {controller} controller")
            path = mount / record.cgroup / file
            try:
                path.write_text(value)
            except OSError:
                refused.append((path, value))
        # cgroup v1 holds memory below memory and swap at every moment: what was too early fits once the other is set
        for path, value in refused:
            try:
                path.write_text(value)
            except OSError as error:
                raise UsageError(f"write {value} to {path}: {error.strerror}") from error


def stats(place: Place) -> dict[str, object]:
    """One line of ``events --stats``, in runc's shape."""
    from runtime.cgroups.stats import usage

    cgroup = place.read().cgroup
    return {"type": "stats", "id": place.id, "data": usage(Cgroup(cgroup, hierarchies_for(cgroup)))}
