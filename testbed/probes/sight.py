"""What the host sees of the processes of attempts, which stay where they got to: in /proc, whatever they say.

An attempt's processes are known by their names, which the program gives them (``TOKEN-INDEX``). In a machine of its own
they are no processes of the host's, and nothing is seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

KINDS = ("user", "net", "mnt", "uts", "ipc", "pid", "cgroup", "time")
_MOST_DESCRIPTORS = 256
_MOST_PROCESSES = 1 << 16
_NAME_BYTES = 64
_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512  # of st_blocks (stat(3type))
_STATUS = re.compile(r"^(Uid|CapEff|VmLck|VmRSS):\s+(.*)$", re.MULTILINE)
_FLAGS = re.compile(r"^flags:\s+0?([0-7]+)$", re.MULTILINE)
_NICE, _POLICY = 18 - 2, 40 - 2  # of /proc/PID/stat, after the name (proc_pid_stat(5), from 1)


class Seen(Struct):
    """What the processes of one attempt were seen to be, all in all: users (real, effective), the effective
    capabilities of each with its user, namespaces by kind, what descriptors are of and which devices, files of /proc
    and /sys that are open for writing, control groups, mounts as in mountinfo, routes as in /proc/net/route,
    the host's numbers of what is root inside, bytes (``file_bytes``: what the largest of its open files takes), and how
    many."""

    pids: set[int] = field(default_factory=set)
    users: set[tuple[int, int]] = field(default_factory=set)
    capabilities: set[tuple[int, int]] = field(default_factory=set)
    namespaces: dict[str, set[str]] = field(default_factory=dict)
    descriptors: set[str] = field(default_factory=set)
    devices: set[int] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    mounts: set[str] = field(default_factory=set)
    runner_mounts: set[str] = field(default_factory=set)
    runner_namespaces: dict[str, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    roots: set[int] = field(default_factory=set)
    routes: set[str] = field(default_factory=set)
    personas: set[int] = field(default_factory=set)
    nice: set[int] = field(default_factory=set)
    policies: set[int] = field(default_factory=set)
    resident_bytes: int = 0
    locked_bytes: int = 0
    file_bytes: int = 0
    most: int = 0


def look(token: str, wanted: Iterable[int], seen: dict[int, Seen]) -> frozenset[int]:
    """Add to ``seen``, by index, what the processes of the ``wanted`` attempts are now; return which were there."""
    by_index: dict[int, list[int]] = {}
    wanted = frozenset(wanted)
    for pid, name in _list_names():
        prefix, _, number = name.partition("-")
        if prefix == token and number.isdigit() and int(number) in wanted:
            by_index.setdefault(int(number), []).append(pid)
    for index, pids in by_index.items():
        one = seen.setdefault(index, Seen())
        one.most = max(one.most, len(pids))
        one.pids.update(pids)
        for pid in pids[:8]:
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                _add(one, _PROC / str(pid))
    return frozenset(by_index)


def _list_names() -> list[tuple[int, str]]:
    names = []
    for entry in os.listdir(_PROC)[:_MOST_PROCESSES]:
        if entry.isdigit():
            try:  # it is looked a hundred times in an attack, at all processes of the host
                file = os.open(f"/proc/{entry}/comm", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                names.append((int(entry), os.read(file, _NAME_BYTES).decode(errors="replace").rstrip()))
            except OSError:
                continue
            finally:
                os.close(file)
    return names


def _add(seen: Seen, process: Path) -> None:
    status = dict(_STATUS.findall((process / "status").read_text()))
    real, effective, *_ = map(int, status["Uid"].split())
    seen.users.add((real, effective))
    seen.capabilities.add((real, int(status["CapEff"], 16)))
    seen.resident_bytes = max(seen.resident_bytes, _kilobytes(status, "VmRSS"))
    seen.locked_bytes = max(seen.locked_bytes, _kilobytes(status, "VmLck"))
    for kind in KINDS:
        with suppress(OSError):
            seen.namespaces.setdefault(kind, set()).add(os.readlink(process / "ns" / kind))
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    seen.nice.add(int(fields[_NICE]))
    seen.policies.add(int(fields[_POLICY]))
    _add_runner(seen, _PROC / fields[1])
    with suppress(OSError):
        seen.personas.add(int((process / "personality").read_text(), 16))
    with suppress(OSError):
        seen.routes.update((process / "net" / "route").read_text().splitlines()[1:])
    seen.roots.update(_find_roots((process / "uid_map").read_text()))
    with suppress(OSError):
        seen.groups.update((process / "cgroup").read_text().splitlines())
    with suppress(OSError):
        seen.mounts.update((process / "mountinfo").read_text().splitlines())
    _add_descriptors(seen, process)


def _find_roots(maps: str) -> set[int]:
    rows = [tuple(map(int, line.split())) for line in maps.splitlines()]
    return {outside for inside, outside, _ in rows if inside == 0}


def _kilobytes(status: Mapping[str, str], key: str) -> int:
    return int(status.get(key, "0").split()[0]) << 10


def _add_runner(seen: Seen, runner: Path) -> None:
    """Note what the process that made the attempt is in; that of an attempt's child is the attempt, which is no less
    in its namespaces."""
    if seen.runner_namespaces:
        return
    with suppress(OSError):
        seen.runner_mounts.update((runner / "mountinfo").read_text().splitlines())
        seen.runner_namespaces.update({kind: os.readlink(runner / "ns" / kind) for kind in KINDS})


def _add_descriptors(seen: Seen, process: Path) -> None:
    kernel = {line.split()[2] for line in seen.mounts if _type(line) in ("proc", "sysfs")}
    for name in os.listdir(process / "fd")[:_MOST_DESCRIPTORS]:
        with suppress(OSError, ValueError):
            link = os.readlink(process / "fd" / name)
            seen.descriptors.add(link)
            found = (process / "fd" / name).stat()
            if found.st_rdev:
                seen.devices.add(found.st_rdev)
            seen.file_bytes = max(seen.file_bytes, found.st_blocks * _BLOCK)
            flags = _FLAGS.search((process / "fdinfo" / name).read_text())
            is_kernels = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}" in kernel
            if flags and int(flags[1], 8) & os.O_ACCMODE and is_kernels:
                seen.written.add(link)


def _type(line: str) -> str:
    return line.partition(" - ")[2].partition(" ")[0]


def find_mounts(lines: Iterable[str], at: str) -> list[tuple[str, str, str]]:
    """Return of the mounts at a path their options, type and source."""
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 5 and fields[4] == at and len(after.split()) >= 2:
            found.append((fields[5], after.split()[0], after.split()[1]))
    return found
