"""Finds and removes what dead runs left on the host. What belongs to a living run, or to others, is not seen.

A run puts everything below its lease: processes only inside its cgroups, files only in its scratch directory,
and its network in a namespace that ends with its processes. So three places show it all; settings of the host that
it changed are noted among its files. Another cgroup there that has no lease is another's, whatever its name.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime import atomic, planners
from runtime.atomic import PARTIAL
from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.home import store_root
from runtime.lease import (
    CGROUP_ROOT,
    STATE_ROOT,
    claimed,
    is_abandoned,
    is_dead,
    is_held,
    leases,
    remove_shared,
    unfinished,
)
from runtime.unionfs import records
from testbed.host import settings as host_settings
from testbed.platforms import docker_client
from testbed.platforms.peers import sweep
from testbed.probes import objects
from testbed.qemu.emulator import daemons_emulators


class Leftover(Struct, frozen=True):
    """One thing that a dead run left: ``kind`` is process, cgroup, setting, canary (an attack's), directory, docker
    (what its daemon has), union (what a driver needed for one that is gone) or partial, ``what`` is which."""

    kind: str
    what: str
    run: str

    def __str__(self) -> str:
        return f"{self.kind:9} {self.what}"


def _directories_below(run: str) -> set[Path]:
    """Return the directories of a lease's cgroup and of those below it, in every hierarchy."""
    return set(sweep.find_directories(f"{CGROUP_ROOT}/{run}"))


def _held() -> bool:
    """Return whether a run is alive, or is just beginning."""
    beginning = any(not is_abandoned(path) for path in unfinished(STATE_ROOT))
    return beginning or any(is_held(name, STATE_ROOT) for name in leases(STATE_ROOT))


def _shared_is_empty() -> bool:
    """Return whether the cgroup above all leases' is there, without processes and without cgroups of others below
    it."""
    directories = [path for mount in hierarchies().used if (path := mount / CGROUP_ROOT).is_dir()]
    return bool(directories) and not any(
        path.stat().st_nlink > 2 or (path / "cgroup.procs").read_text() for path in directories
    )


def _command(pid: int) -> str:
    with suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return text[:80]
    return "?"


def _partials() -> list[Path]:
    """Return half-written files and directories of the store whose writer is dead; layers' own files are not looked
    at."""
    paths = [path for depth in ("*", "*/*") for path in store_root().glob(f"{depth}/{PARTIAL}*")]
    return [path for path in paths if is_abandoned(path)]


def find() -> tuple[Leftover, ...]:
    """Return all leftovers: processes first, for they hold the rest. Raises PrerequisiteError when there are runs of
    which this user cannot tell the dead from the living."""
    names = leases(STATE_ROOT)
    try:
        dead = [name for name in names if is_dead(name, STATE_ROOT)]
    except PermissionError as error:
        raise PrerequisiteError(
            f"there are runs below {STATE_ROOT}: {', '.join(names)}; which of them still live is not visible: "
            f"{error.filename}: {error.strerror}",
            "run it as root",
        ) from error
    processes: dict[int, str] = {}
    groups: set[tuple[str, str]] = set()
    for run in dead:
        for directory in _directories_below(run):
            groups.add(("/".join(directory.parts[directory.parts.index(CGROUP_ROOT) :]), run))
            with suppress(OSError):  # ENOENT, or ENODEV: it has just been removed
                processes |= {int(pid): run for pid in (directory / "cgroup.procs").read_text().split()}
    with suppress(OSError):  # a run that ends has just removed it
        if not groups and not _held() and _shared_is_empty():
            groups.add((CGROUP_ROOT, ""))
    scratch = [STATE_ROOT / run for run in dead]
    living = {docker_client.mark_of(run) for run in names if run not in dead}
    abandoned = [path for path in unfinished(STATE_ROOT) if is_abandoned(path)]
    return (
        *(Leftover("process", f"{pid} {_command(pid)}", run) for pid, run in sorted(processes.items()) if pid),
        *(Leftover("cgroup", name, run) for name, run in sorted(groups, reverse=True)),
        *(
            Leftover("setting", f"{setting} (was {value})", path.name)
            for path in scratch
            for setting, value in host_settings.read_record(path).items()
        ),
        *(
            Leftover("canary", f"{kind} {what}", path.name)
            for path in scratch
            for kind, what in objects.read_left(path)
        ),
        *(Leftover("directory", str(path), path.name) for path in scratch),
        *(Leftover("docker", one.what, one.mark) for one in docker_client.find_marked() if one.mark not in living),
        *(Leftover("union", what, "") for what in records.leftovers()),
        *(Leftover("partial", str(path), "") for path in (*abandoned, *sorted(_partials()))),
    )


def remove_run(run: str) -> None:
    """End what a dead run left: its processes, cgroups, settings and files. A lease that is held now is left alone."""
    with claimed(run, STATE_ROOT) as directory:
        if directory is not None:
            cgroup = Cgroup(f"{CGROUP_ROOT}/{run}")
            cgroup.kill()
            cgroup.remove()
            sweep.remove_directories(cgroup.name)
            objects.remove_left(directory)
            host_settings.restore_settings(directory)


def remove(leftovers: tuple[Leftover, ...]) -> None:
    """Remove what ``find`` found, each run as a whole. Raises TestbedError for what would not go, after trying all."""
    problems: list[str] = []
    for run in sorted({leftover.run for leftover in leftovers if leftover.run and leftover.kind != "docker"}):
        try:
            remove_run(run)
        except (OSError, TestbedError) as error:
            problems.append(f"{run}: {error}")
    for mark in sorted({leftover.run for leftover in leftovers if leftover.kind == "docker"}):
        docker_client.remove_marked(docker_client.DOCKER.name, mark)
    for leftover in leftovers:
        if leftover.kind == "partial":
            try:
                atomic.remove(Path(leftover.what))
            except OSError as error:
                problems.append(f"{leftover}: {error}")
    if any(leftover.kind == "union" for leftover in leftovers):
        records.sweep()
    remove_shared(STATE_ROOT)
    if problems:
        is_root = os.geteuid() == 0
        hint = "see what still uses them" if is_root else "run it as root"
        raise (TestbedError if is_root else PrerequisiteError)("remove leftovers:\n  " + "\n  ".join(problems), hint)


def end_planners() -> tuple[int, ...]:
    """End the processes that decide for testbed-runtime, of which the next call starts another; their numbers."""
    there = planners.residents(os.environ)
    for resident in there:
        planners.end(resident)
    for directory in planners.directories(os.environ):
        planners.remove_dead(directory)
    return tuple(resident.pid for resident in there)


def remove_store() -> Path:
    """Remove images, guest kernels, disks, verdicts and hosts of other releases, which are made again when needed.
    Returns where they were.

    Raises UsageError while a run or a build is alive.
    """
    if _held():
        raise UsageError("a run or a build is using the store", "wait for its end, or end it")
    root = store_root()
    for folder in ("images", "guest", "hosts"):
        if (root / folder).exists():
            shutil.rmtree(root / folder)
    for emulator in daemons_emulators():
        emulator.unlink()
    return root
