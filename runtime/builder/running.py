"""Execute a RUN: its command runs in a container on the layers so far, and its changes are the new layer.

Several may run at a time, one for each stage of a build that can go on. They share a lease and end together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from runtime import container
from runtime.builder.output import follow
from runtime.builder.runs import Runs
from runtime.builder.stage import Stage
from runtime.builder.trust import Lent, lend_certificates
from runtime.config.default import DEFAULT_CAPABILITIES, DEFAULT_PATH
from runtime.config.types import Mount
from runtime.errors import PrerequisiteError, TestbedError, WorkloadError
from runtime.images.base import apt_options, package_urls, proxy_environment
from runtime.images.merging import directories
from runtime.images.model import Layer
from runtime.images.mount_points import remove_mount_points
from runtime.images.oci import EPOCH_S
from runtime.images.rootfs import is_directory
from runtime.images.space import MIB, free_bytes
from runtime.images.user import home_directory
from runtime.launcher import StepError
from runtime.outgoing import loopback_services, outgoing
from runtime.plan.root import hosts_file
from runtime.plan.steps import Exec
from runtime.plan.workload import Building
from runtime.spec import Process, Spec, User
from runtime.unionfs.overlay import WritableLayer

_APT, _APT_FILE = "/etc/apt/apt.conf.d", "apt/apt.conf.d/99testbed-host"
# What containers have, except for what raw packets need.
CAPABILITIES = tuple(name for name in DEFAULT_CAPABILITIES if name != "CAP_NET_RAW")
# With less than this left, a command has most likely failed for lack of space.
FULL_BELOW_BYTES = 8 * MIB


class Command(Struct, frozen=True):
    """What a RUN executes: ``args`` as ``user``, with further variables and ``mounts``, connected or on its own.

    For errors, ``where`` is the Dockerfile's ``path:line``, ``text`` the instruction's text, ``hint`` what to do after
    a failure.
    """

    args: tuple[str, ...]
    user: User
    where: str
    text: str
    hint: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    connected: bool = True


def run_command(stage: Stage, command: Command, scratch: Path, runs: Runs, progress: Callable[[str], None]) -> Path:
    """Run a command on top of the stage's layers and return the directory of the changes.

    ``scratch`` (on the store's file system) takes the changes. ``progress`` is called with each line of the output as
    it comes. Raises WorkloadError with the last of them if the command fails.
    """
    upper = scratch / "upper"
    with ExitStack() as undo:
        reading, writing = os.pipe()
        undo.callback(os.close, reading)
        try:
            started = start_command(stage, command, scratch, runs, undo, stdout=writing)
        finally:
            os.close(writing)
        undo.enter_context(runs.running(started.process.pid))
        tail = follow(reading, progress)
        status = started.wait()
    runs.check()
    if status != 0:
        raise _failure(command, status, tail, scratch)
    mounts = (*_lend(command).mounts, *command.mounts)
    targets = (f"etc/{_APT_FILE}", *(mount.destination for mount in mounts))
    remove_mount_points(upper, stage.layers, targets)
    return upper


def start_command(
    stage: Stage, command: Command, scratch: Path, runs: Runs, undo: ExitStack, *, stdout: int, stdin: int | None = None
) -> container.Container:
    """Start a command on top of the stage's layers; ``undo`` ends it and its network. Raises WorkloadError."""
    upper, work, root = scratch / "upper", scratch / "work", scratch / "root"
    for directory in (upper, work, root):
        directory.mkdir()
    upper.chmod(0o755)
    lent = _lend(command)
    spec = Spec(_process(stage, command, lent.variables), directories(stage.layers), hostname="build")
    resolver = _text_of("/etc/resolv.conf")
    files = (("resolv.conf", resolver), ("hosts", hosts_file(spec.hosts)), *_apt_configuration(stage.layers))
    writable = WritableLayer(str(upper), str(work))
    mounts = (*lent.mounts, *command.mounts)
    building = Building(writable, files, command.connected, mounts, mount_point=str(root))

    def connect(pid: int) -> None:
        proxies = proxy_environment({**os.environ, **dict(command.variables)})
        urls = (*proxies.values(), *package_urls())
        undo.enter_context(outgoing(pid, loopback_services(urls, resolver), {"PATH": DEFAULT_PATH}))

    try:
        started = container.start(
            spec,
            name=runs.name(),
            stdout=stdout,
            stdin=stdin,
            building=building,
            connect=connect if command.connected else None,
        )
    except StepError as error:
        raise _not_started(command, error) from error
    undo.callback(started.delete)
    return started


def _lend(command: Command) -> Lent:
    """Return the certificates that a command has: one that reaches nobody needs none."""
    return lend_certificates(os.environ) if command.connected else Lent({}, ())


def _process(stage: Stage, command: Command, lent: Mapping[str, str]) -> Process:
    environment = stage.run_environment | dict(command.variables)
    environment.setdefault("HOME", home_directory(command.user.uid, stage.layers))
    # Tools that stamp what they write use this time instead of today's, if they can.
    environment.setdefault("SOURCE_DATE_EPOCH", str(EPOCH_S))
    environment = {**proxy_environment(os.environ), **lent, **environment}
    return Process(
        args=command.args,
        env=tuple(f"{name}={value}" for name, value in environment.items()),
        cwd=stage.config.working_dir,
        user=command.user,
        capabilities=CAPABILITIES,
        no_new_privileges=False,  # like other builders: installing software uses set-user-ID programs
    )


def _apt_configuration(layers: Sequence[Layer]) -> tuple[tuple[str, str], ...]:
    """Return how this host downloads packages, for an image that has apt. The image does not keep this."""
    options = apt_options()
    return ((_APT_FILE, "".join(f"{line}\n" for line in options)),) if options and is_directory(_APT, layers) else ()


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # the host has no resolver
        return ""


def _not_started(command: Command, error: StepError) -> TestbedError:
    if isinstance(error.failed, Exec):
        what = f"{command.where}: RUN {command.text}: execute {command.args[0]}: {os.strerror(error.errno)}"
        return WorkloadError(what, "the image must have the program, or the interpreter that its first line names")
    return WorkloadError(f"{command.where}: RUN {command.text}: {error.message}", error.hint)


def _failure(
    command: Command, status: int | None, tail: Sequence[str], scratch: Path
) -> PrerequisiteError | WorkloadError:
    output = "".join(f"\n    {line}" for line in tail)
    what = f"{command.where}: RUN {command.text}: exit status {status}{output}"
    if free_bytes(scratch) < FULL_BELOW_BYTES:
        return PrerequisiteError(
            f"{what}\n    no space left at {scratch.parent}",
            "free some space, or set TESTBED_HOME to a directory on a larger file system",
        )
    return WorkloadError(what, command.hint)
