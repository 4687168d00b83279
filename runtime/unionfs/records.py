"""Keep record of the unions that are mounted, so that what was interrupted is finished or undone by the next call.

A record is written before what it describes is done. The mounts themselves say how far that came: each has its union's
name and the number of its generation as its source in mountinfo, where its driver lets it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import read_document, remove, replace_file
from runtime.errors import PrerequisiteError, UsageError
from runtime.unionfs import mount_api
from runtime.unionfs.branches import Union
from runtime.unionfs.drivers import FUSE_PROGRAMS, TRIAL
from runtime.unionfs.mount_api import MountPoint

_PREFIX = "union-"


class Generation(Struct, frozen=True):
    """A union as it was mounted once; each change makes the next one. ``work`` is its driver's directory, or empty,
    ``device`` the number of its file system (``0:47``), from when it is made."""

    number: int
    union: Union
    driver: str
    detail: str
    work: str = ""
    device: str = ""


class Record(Struct, frozen=True):
    """A union: its name, where it is mounted, in which mount namespace (the number of its inode), and its generations.

    ``current`` is the number of the one that is seen, and 0 before there is one. A later one is being made.
    """

    name: str
    target: str
    namespace: int
    generations: tuple[Generation, ...]
    current: int = 0

    def generation(self) -> Generation:
        """Return the generation that is seen."""
        return next(one for one in self.generations if one.number == self.current)

    def source(self, number: int) -> str:
        """Return what names the mount of a generation."""
        return f"{_PREFIX}{self.name}.{number}"


class Repair(Struct, frozen=True):
    """What makes a record true again: the ``record``, or None when its union is gone, generations that are given up,
    and whether the topmost mount is an old one over its successor."""

    record: Record | None
    abandoned: tuple[Generation, ...] = ()
    unmount_top: bool = False


def state_root() -> Path:
    """Return the directory of the records. Raises PrerequisiteError for a user who has none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.access("/run", os.W_OK):
        return Path("/run/testbed-unions")
    if not runtime:
        raise PrerequisiteError("unions: /run is not writable", "run as root, or set XDG_RUNTIME_DIR")
    return Path(runtime) / "testbed-unions"


def own_namespace() -> int:
    """Return the number of this process's mount namespace."""
    return os.stat("/proc/self/ns/mnt").st_ino


def is_inhabited(namespace: int) -> bool:
    """Return whether a process is in a mount namespace."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/mnt").st_ino == namespace:
                return True
    return False


def generation_of(record: Record, mount: MountPoint) -> int:
    """Return the number of the generation that a mount is of, or 0."""
    for one in record.generations if mount.target == record.target else ():
        if one.driver == "copy":
            same = os.path.basename(one.work) == os.path.basename(mount.root)
        elif one.driver == "fuse-overlayfs":  # which names itself, whatever it is told
            same = one.device == mount.device
        else:
            same = record.source(one.number) == mount.source
        if same:
            return one.number
    return 0


def decide_repair(record: Record, mounted: Sequence[int], top: int) -> Repair:
    """Return what makes a record true, given the generations that are ``mounted`` and the one that is on ``top`` (0:
    another mount is). Pure."""
    if not mounted:
        return Repair(None, record.generations)
    newest = record.generations[-1]
    if newest.number == record.current:
        return Repair(record)
    if newest.number in mounted:
        return Repair(replace(record, current=newest.number), unmount_top=top == record.current)
    return Repair(replace(record, generations=record.generations[:-1]), (newest,))


class Records:
    """The records below a directory."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or state_root()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for whoever changes a union, repair what a killed one left, and keep others out meanwhile."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open(self.root / "lock", "w")  # noqa: SIM115 # it is closed below
        except OSError as error:
            raise PrerequisiteError(f"unions: make {self.root}: {error.strerror}", "run as root") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.repair()
            yield

    def is_idle(self) -> bool:
        """Return whether nobody is changing a union, so that what looks dead is."""
        try:
            with open(self.root / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except (BlockingIOError, PermissionError):
            return False
        return True

    def all(self) -> tuple[Record, ...]:
        """Return the records, by target."""
        found = (read_document(path, Record) for path in self._paths())
        return tuple(sorted((one for one in found if one), key=lambda one: one.target))

    def here(self) -> tuple[Record, ...]:
        """Return those of this mount namespace that are seen."""
        namespace = own_namespace()
        return tuple(one for one in self.all() if one.namespace == namespace and one.current)

    def find(self, target: str) -> Record:
        """Return the record of the union at ``target``. Raises UsageError when there is none."""
        for record in self.here():
            if record.target == target:
                return record
        there = ", ".join(one.target for one in self.here()) or "none"
        raise UsageError(f"{target}: there is no union of ours", f"there are: {there}")

    def write(self, record: Record) -> None:
        """Write a record, in place of what it said before."""
        replace_file(self._path(record), msgspec.json.encode(record))

    def forget(self, record: Record) -> None:
        """Remove a record and what its drivers needed."""
        for generation in record.generations:
            _discard(record, generation)
        self._path(record).unlink(missing_ok=True)

    def dead(self) -> tuple[Record, ...]:
        """Return the records of unions that are gone. Nothing is changed."""
        return tuple(one for one in self.all() if (repair := self._examine(one)) and repair.record is None)

    def _paths(self) -> list[Path]:
        return sorted(self.root.glob("*.json"))

    def _path(self, record: Record) -> Path:
        return self.root / f"{record.name}.json"

    def _examine(self, record: Record) -> Repair | None:
        """Return what repairs a record; None when it is another namespace's."""
        if record.namespace != own_namespace():
            return None if is_inhabited(record.namespace) else Repair(None, record.generations)
        mounts = {one.id: generation_of(record, one) for one in mount_api.mounts()}
        top = 0
        with suppress(OSError):
            top = mounts.get(mount_api.mount_id(record.target), 0)
        return decide_repair(record, [number for number in mounts.values() if number], top)

    def repair(self) -> None:
        """Finish or undo what was interrupted; the lock must be held."""
        for pid in lost_trials():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for record in self.all():
            repair = self._examine(record)
            if repair is None or repair.record == record:
                continue
            if repair.unmount_top:
                mount_api.unmount(record.target, lazy=True)
            if repair.record is None:
                self.forget(record)
                continue
            for generation in repair.abandoned:
                _discard(record, generation)
            self.write(repair.record)


def _discard(record: Record, generation: Generation) -> None:
    """Remove what a generation's driver needed, which is not mounted any more: its directory, and a FUSE program that
    has lost its mount, as it does when its maker is killed in that moment."""
    if generation.work and os.path.lexists(generation.work):
        remove(Path(generation.work))
    if generation.driver in FUSE_PROGRAMS:
        _end_fuse(record.source(generation.number))


def _end_fuse(source: str) -> None:
    """End the FUSE programs of a mount that is gone."""
    for pid, name in _fuse_programs():
        if name == source:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def lost_trials() -> tuple[int, ...]:
    """Return the FUSE programs that a driver was tried with by a process that was killed meanwhile."""
    return tuple(
        pid
        for pid, name in _fuse_programs()
        if name.startswith(TRIAL) and not os.path.exists(f"/proc/{name.removeprefix(TRIAL)}")
    )


def leftovers(root: Path | None = None) -> tuple[str, ...]:
    """Return, in words, what is left of unions that are gone: somebody else unmounted them, or killed who made them."""
    try:
        records = Records(root)
    except PrerequisiteError:  # this user has no unions
        return ()
    dead = records.dead() if records.is_idle() else ()
    return (
        *(f"record of the union at {record.target}" for record in dead),
        *(f"process {pid}, which a driver was tried with" for pid in lost_trials()),
    )


def sweep(root: Path | None = None) -> None:
    """Remove what is left of unions that are gone."""
    with Records(root).locked():
        return


def _fuse_programs() -> Iterator[tuple[int, str]]:
    """Yield the FUSE programs that run, with the name that each was given for its mount."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                program, *arguments = file.read().split(b"\0")
            if os.fsdecode(os.path.basename(program)) in FUSE_PROGRAMS:
                options = (word for one in arguments for word in os.fsdecode(one).split(","))
                yield from ((int(pid), word.removeprefix("fsname=")) for word in options if word.startswith("fsname="))
