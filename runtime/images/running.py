"""RUN: execute a command in a container over the layers so far; what it changes is the new layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime import container
from runtime.errors import PrerequisiteError, WorkloadError
from runtime.images.base import proxy_environment
from runtime.images.layers import is_opaque
from runtime.images.model import Layer
from runtime.images.oci import EPOCH_S
from runtime.images.rootfs import lookup
from runtime.images.space import MIB, free_bytes
from runtime.images.stage import Stage
from runtime.images.user import home_directory
from runtime.lease import cgroup_name, lease
from runtime.spec import DEFAULT_PATH, Process, Spec, User

# Where the runtime mounts or binds over the image; with none in the image, it makes these to mount on.
MOUNT_POINTS = ("dev", "proc", "sys")
BOUND_FILES = ("etc/resolv.conf", "etc/hosts", "etc/hostname")
SHOWN_LINES = 20
# With less than this left, a command that failed has most likely failed for want of space.
FULL_BELOW_BYTES = 8 * MIB


def run_environment(stage: Stage) -> dict[str, str]:
    """The variables of a RUN, ARG's and ENV's, as far as they decide what it does."""
    return {"PATH": DEFAULT_PATH, **stage.variables}


def run_command(stage: Stage, args: Sequence[str], user: User, scratch: Path, where: str) -> Path:
    """Run ``args`` as ``user`` on top of the stage's layers and return the directory of the changes.

    ``scratch`` (on the store's file system) takes the changes and the output; ``where`` is the Dockerfile's
    ``path:line``. Raises WorkloadError with the output's last lines when the command fails.
    """
    upper, work, log = scratch / "upper", scratch / "work", scratch / "log"
    upper.mkdir()
    work.mkdir()
    upper.chmod(0o755)
    environment = run_environment(stage)
    environment.setdefault("HOME", home_directory(user.uid, stage.layers))
    # Tools that stamp what they write use this time instead of today's, if they can.
    environment.setdefault("SOURCE_DATE_EPOCH", str(EPOCH_S))
    environment = proxy_environment(os.environ) | environment
    process = Process(
        args=tuple(args),
        env=tuple(f"{name}={value}" for name, value in environment.items()),
        cwd=stage.config.working_dir,
        user=user,
        no_new_privileges=False,  # as other builders: set-user-id programs are part of installing software
    )
    spec = Spec(process, tuple(str(layer.path) for layer in stage.layers), hostname="build", host_network=True)
    owner = f"build-{os.getpid()}"
    with open(log, "wb") as output, lease(owner):
        status = container.run(spec, upper=upper, work=work, log=output.fileno(), name=cgroup_name(owner, "run"))
    if status != 0:
        raise _failure(where, args, status, log, scratch)
    remove_mount_points(upper, stage.layers)
    return upper


def remove_mount_points(upper: Path, layers: Sequence[Layer]) -> None:
    """Take out of a RUN's changes what is the runtime's: mount points that the image did not have.

    A file that is bound over shows in ``upper`` empty; a directory mounted on shows nothing of its own.
    """
    for name in BOUND_FILES:
        path = upper / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size == 0 and not _has_content(name, layers):
            path.unlink()
    for name in MOUNT_POINTS:
        path = upper / name
        if path.is_dir() and lookup("/" + name, layers) is None and not any(path.iterdir()):
            path.rmdir()
    _remove_unchanged(upper, "etc", layers)


def _has_content(name: str, layers: Sequence[Layer]) -> bool:
    below = lookup("/" + name, layers)
    return below is not None and below.stat().st_size > 0


def _remove_unchanged(upper: Path, name: str, layers: Sequence[Layer]) -> None:
    """Remove a directory that overlay copied up for the sake of a bound file only."""
    path, below = upper / name, lookup("/" + name, layers)
    if below is None or not path.is_dir() or path.is_symlink() or any(path.iterdir()) or is_opaque(path):
        return
    above, under = path.lstat(), below.lstat()
    if (above.st_mode, above.st_uid, above.st_gid) == (under.st_mode, under.st_uid, under.st_gid):
        path.rmdir()


def _failure(
    where: str, args: Sequence[str], status: int, log: Path, scratch: Path
) -> PrerequisiteError | WorkloadError:
    command = args[2] if list(args[:2]) == ["/bin/sh", "-c"] else " ".join(args)
    lines = log.read_text(errors="replace").strip().splitlines()
    output = "".join(f"\n    {line}" for line in lines[-SHOWN_LINES:])
    what = f"{where}: RUN {command}: exit status {status}{output}"
    if free_bytes(scratch) < FULL_BELOW_BYTES:
        return PrerequisiteError(
            f"{what}\n    no space left at {scratch.parent}",
            "free some space, or set TESTBED_HOME to a directory on a larger file system",
        )
    return WorkloadError(what, "the lines above are the end of the command's output")
