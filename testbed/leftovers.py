"""What dead runs left on the host, and its removal. What belongs to a living run, or to others, is not seen.

A run puts everything below its lease: processes only inside its cgroups, files only in its scratch directory,
and its network in a namespace that ends with its processes. So three places tell all; settings of the host that
it changed are noted among its files.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime import atomic
from runtime.atomic import PARTIAL, writer_of
from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import TestbedError, UsageError
from runtime.home import store_root
from runtime.lease import CGROUP_ROOT, STATE_ROOT, is_held, remove_shared
from testbed import host_settings


class Leftover(Struct, frozen=True):
    """One thing that a dead run left: ``kind`` is process, cgroup, setting, directory or partial, ``what`` is which."""

    kind: str
    what: str
    run: str

    def __str__(self) -> str:
        return f"{self.kind:9} {self.what}"


def _cgroup_directories() -> set[Path]:
    """Every cgroup directory below ours, in every hierarchy, of leases that nobody holds."""
    found: set[Path] = set()
    for mount in hierarchies().used:
        root = mount / CGROUP_ROOT
        for run in root.iterdir() if root.is_dir() else ():
            if run.is_dir() and not is_held(run.name):
                found.update(path for path in (run, *run.rglob("*")) if path.is_dir())
    return found


def _held() -> bool:
    return STATE_ROOT.is_dir() and any(is_held(path.name, STATE_ROOT) for path in STATE_ROOT.iterdir())


def _run_of(directory: Path) -> str:
    parts = directory.parts
    return parts[parts.index(CGROUP_ROOT) + 1]


def _command(pid: int) -> str:
    with suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return text[:80]
    return "?"


def _partials() -> list[Path]:
    """Half-written files and directories of the store whose writer is dead; layers' own files are not looked at."""
    paths = [path for depth in ("*", "*/*") for path in store_root().glob(f"{depth}/{PARTIAL}*")]
    return [path for path in paths if not Path(f"/proc/{writer_of(path)}").exists()]


def find() -> tuple[Leftover, ...]:
    """All leftovers: processes first, for they hold the rest."""
    processes: dict[int, str] = {}
    groups: set[tuple[str, str]] = set()
    for directory in sorted(_cgroup_directories()):
        run = _run_of(directory)
        name = "/".join(directory.parts[directory.parts.index(CGROUP_ROOT) :])
        groups.add((name, run))
        with suppress(FileNotFoundError):
            for pid in map(int, (directory / "cgroup.procs").read_text().split()):
                processes[pid] = run
    shared = [] if groups or _held() else [mount / CGROUP_ROOT for mount in hierarchies().used]
    if any(path.is_dir() for path in shared):
        groups.add((CGROUP_ROOT, ""))
    scratch = [path for path in STATE_ROOT.iterdir() if not is_held(path.name)] if STATE_ROOT.is_dir() else []
    return (
        *(Leftover("process", f"{pid} {_command(pid)}", run) for pid, run in sorted(processes.items()) if pid),
        *(Leftover("cgroup", name, run) for name, run in sorted(groups, reverse=True)),
        *(
            Leftover("setting", f"{setting} (was {value})", path.name)
            for path in sorted(scratch)
            for setting, value in host_settings.recorded(path).items()
        ),
        *(Leftover("directory", str(path), path.name) for path in sorted(scratch)),
        *(Leftover("partial", str(path), "") for path in sorted(_partials())),
    )


def remove(leftovers: tuple[Leftover, ...]) -> None:
    """Remove what ``find`` found. Raises TestbedError for what would not go, after trying all."""
    problems: list[str] = []
    for leftover in leftovers:
        try:
            if leftover.kind == "cgroup":
                cgroup = Cgroup(leftover.what)
                cgroup.kill()
                cgroup.remove()
            elif leftover.kind == "directory":
                host_settings.put_back(Path(leftover.what))
                atomic.remove(Path(leftover.what))
            elif leftover.kind == "partial":
                atomic.remove(Path(leftover.what))
        except (OSError, TestbedError) as error:
            problems.append(f"{leftover}: {error}")
    remove_shared()
    if problems:
        hint = "run as root" if os.geteuid() != 0 else "see what still uses them"
        raise TestbedError("remove leftovers:\n  " + "\n  ".join(problems), hint)


def remove_store() -> Path:
    """Remove images, guest kernels, disks and verdicts; the next run makes them again. Returns where they were.

    Raises UsageError while a run or a build is alive.
    """
    from testbed.platforms.emulator import daemons_emulators

    if _held():
        raise UsageError("a run or a build is using the store", "wait for its end, or end it")
    root = store_root()
    for folder in ("images", "guest"):
        if (root / folder).exists():
            shutil.rmtree(root / folder)
    for emulator in daemons_emulators():
        emulator.unlink()
    return root
