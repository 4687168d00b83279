"""Keep the state of the containers that the command line made: each has a directory with its record and its lock."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from errno import EAGAIN, EBADF, EEXIST, ENOENT, ENOTDIR, ESTALE
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import Struct, field
from msgspec.structs import asdict, replace

from runtime.atomic import PARTIAL
from runtime.cgroups import Cgroup, Hierarchies
from runtime.cgroups.systemd import is_unprivileged
from runtime.config.decode import short
from runtime.config.default import OCI_VERSION
from runtime.config.validate import check_id, is_id
from runtime.errors import UsageError, in_words
from runtime.launcher import StepError
from runtime.oci.caller import Caller
from runtime.plan import steps as s
from runtime.processes import has_executed

# These files hold how it was made, its first process, the lock of a command, and the socket where it waits.
_RECORD, _PROCESS, LOCK, _SOCKET = "record.json", "process", "lock", "start"


# This step releases the lock of the container that the client holds, if there is one.
UNLOCK = s.Close(s.LOCK_FD, tolerate=(EBADF,))


class UnknownContainer(UsageError):
    """No container has this id."""


class Damaged(UsageError):
    """The record of a container cannot be read."""

    def __init__(self, container_id: str, why: object) -> None:
        super().__init__(
            f"container {container_id}: its record is damaged: {short(str(why))}",
            "remove it with delete --force; a cgroup of it may stay",
        )


class Busy(UsageError):
    """Another command works on the container and does not end."""


def _is_below(cgroup: str) -> bool:
    """Tell whether a cgroup's name leads neither to its hierarchy's root nor upwards."""
    return "\0" not in cgroup and not {"", ".", ".."} & set(cgroup.split("/"))


class Record(Struct, frozen=True):
    """A container as it was made. ``pid`` is 0 until its process exists, and ``cgroup`` is empty if it has none.
    ``config`` is the text of its config.json; ``choices`` is what the command line added."""

    id: str
    bundle: str
    rootfs: str
    cgroup: str
    config: str
    owner: str
    pid: int = 0
    start_time: int = 0
    choices: dict[str, object] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    def made_as(self) -> dict[str, object]:
        """Return the fields that do not change while the container exists."""
        return {name: value for name, value in asdict(self).items() if name not in ("pid", "start_time")}


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def default_root(environment: Mapping[str, str]) -> Path:
    """Return where state is kept: below /run for root, else below the user's runtime directory or one in /tmp."""
    if not is_unprivileged():
        return Path("/run/testbed-runtime")
    return Path(environment.get("XDG_RUNTIME_DIR") or f"/tmp/testbed-runtime-{os.geteuid()}") / "testbed-runtime"


def check_root(root: Path) -> None:
    """Raise UsageError unless only we can write to the state's root or it does not exist yet: its records decide which
    processes are signalled and which cgroups are removed."""
    ours = os.geteuid()
    own = root.parent.name == f"testbed-runtime-{ours}"  # it is in /tmp, where anybody may have made it before us
    for directory in (root.parent, root) if own else (root,):
        try:
            status = os.lstat(directory)
            if stat.S_ISLNK(status.st_mode) and status.st_uid in (0, ours):
                status = os.stat(directory)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:  # ValueError: the path has a NUL byte
            raise UsageError(f"state root {directory}: {getattr(error, 'strerror', None) or error}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"state root {directory}: not a directory")
        if status.st_uid != ours or status.st_mode & 0o022:
            raise UsageError(
                f"state root {directory}: it belongs to user {status.st_uid}, mode {status.st_mode & 0o7777:04o}",
                f"it must be writable by user {ours} alone; remove it, or give another with --root",
            )


class StateDir(Struct, frozen=True, dict=True):
    """A container's directory in the state's root. Raises UsageError for an invalid id or as ``check_root`` does."""

    root: Path
    id: str

    def __post_init__(self) -> None:
        check_id(self.id)
        check_root(self.root)

    @cached_property
    def directory(self) -> str:
        """Return the directory's path."""
        return f"{self.root}/{self.id}"

    def file(self, name: str) -> str:
        """Return the path of one of its files."""
        return f"{self.directory}/{name}"

    @property
    def notify_directory(self) -> Path:
        """Return the directory of the socket, if any, through which the container reports that it is ready."""
        return Path(self.file("notify"))

    def claim(self, caller: Caller, undo: tuple[str, ...]) -> None:
        """Have the client make and lock the directory; from then on ``undo`` is the request that removes it.

        Raises UsageError when the id is taken.
        """
        above = [path for path in (*reversed(self.root.parents), self.root) if not path.is_dir()]
        caller.later(*(s.Mkdir(str(path), 0o700, tolerate=(EEXIST,)) for path in above))
        try:
            if above:
                caller.perform()
                check_root(self.root)
            caller.undo = undo
            caller.perform(s.Mkdir(self.directory, 0o700), s.Lock(self.file(LOCK), s.LOCK_FD, create=True))
        except StepError as error:
            caller.undo = ()
            if error.errno == EEXIST and isinstance(error.failed, s.Mkdir):
                raise self._taken() from error
            if isinstance(error.failed, s.Lock):
                caller.attempt(s.Remove(self.directory, directory=True))
            raise

    def check_free(self) -> None:
        """Raise UsageError when the id is taken."""
        if os.path.lexists(self.directory):
            raise self._taken()

    def _taken(self) -> UsageError:
        return UsageError(
            f"container {self.id}: container with given ID already exists", "delete it, or take another id"
        )

    def lock(self, caller: Caller, patience_s: float | None = None) -> None:
        """Let no other command work on the container until the client ends or performs UNLOCK.

        Raises UnknownContainer when there is no container (any more), and Busy when another command still holds the
        lock after ``patience_s``. With None, this waits as long as it takes.
        """
        timeout_ms = 0 if patience_s is None else int(patience_s * 1000)
        try:
            caller.perform(UNLOCK, s.Lock(self.file(LOCK), s.LOCK_FD, timeout_ms, create=True))
        except StepError as error:
            if error.errno in (ENOENT, ENOTDIR, ESTALE):
                raise UnknownContainer(f"container {self.id} does not exist") from error
            if error.errno == EAGAIN:
                raise Busy(
                    f"container {self.id}: another command works on it, which does not end", "end that first"
                ) from error
            raise

    def read(self) -> Record:
        """Read the record. Raises UnknownContainer, Damaged."""
        try:
            record = msgspec.json.decode(_content(self.file(_RECORD)), type=Record)
        except FileNotFoundError as error:
            raise UnknownContainer(f"container {self.id} does not exist") from error
        except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise Damaged(self.id, in_words(error)) from error
        if record.id != self.id:
            raise Damaged(self.id, f"it is {short(record.id)!r}'s")
        if record.cgroup and not _is_below(record.cgroup):  # deleting the container kills all processes in it
            raise Damaged(self.id, f"cgroup {record.cgroup!r}")
        pid, start = self.process()
        return replace(record, pid=pid, start_time=start) if pid else record

    def process(self) -> tuple[int, int]:
        """Return the first process's pid and start time, or zeros as long as there is none. Raises Damaged."""
        try:
            pid, start = map(int, _content(self.file(_PROCESS)).split())
        except FileNotFoundError:
            return 0, 0
        except (OSError, ValueError) as error:
            raise Damaged(self.id, in_words(error)) from error
        if not 0 < pid < 1 << 31:
            raise Damaged(self.id, f"process {pid}")
        return pid, start

    def _replace(self, name: str, content: bytes) -> s.Replace:
        return s.Replace(self.file(name), self.file(f"{PARTIAL}{name}"), content)

    def record_step(self, record: Record) -> s.Step:
        """Return the step that records a container that has no process yet."""
        return self._replace(_RECORD, msgspec.json.encode(record.made_as()))

    def process_step(self, record: Record) -> s.Step:
        """Return the step that records the container's first process."""
        return self._replace(_PROCESS, f"{record.pid} {record.start_time}\n".encode())

    def listen_step(self) -> s.Step:
        """Return the step that makes the socket at which the first process waits to be started."""
        return s.Listen(self.file(_SOCKET), s.LISTENING_FD)

    def created(self) -> str:
        """Return when the container was made, in the format of RFC 3339. Raises UnknownContainer."""
        try:
            made = os.stat(self.file(LOCK)).st_mtime
        except FileNotFoundError as error:  # deleted meanwhile
            raise UnknownContainer(f"container {self.id} does not exist") from error
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))

    def removal_steps(self) -> tuple[s.Step, ...]:
        """Return the steps that remove the state; the lock, which shows that the container exists, is removed last."""
        gone = (ENOENT,)
        steps: list[s.Step] = []
        for directory, directories, files in os.walk(self.directory, topdown=False):
            last = [LOCK] if directory == self.directory else []
            files = [name for name in files if name not in last] + [name for name in files if name in last]
            links = [name for name in directories if os.path.islink(f"{directory}/{name}")]
            steps += [s.Remove(f"{directory}/{name}", tolerate=gone) for name in (*links, *files)]
            steps.append(s.Remove(directory, directory=True, tolerate=gone))
        return tuple(steps)

    def connect(self, caller: Caller) -> socket.socket:
        """Connect to the waiting first process; nobody can do so again. Raises UsageError when it does not wait."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            directory = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # this path is short enough for a socket address wherever the state is
                channel.connect(f"/proc/self/fd/{directory}/{_SOCKET}")
            finally:
                os.close(directory)
        except OSError as error:
            channel.close()
            raise UsageError(f"start container {self.id}: it does not wait to be started") from error
        caller.later(s.Remove(self.file(_SOCKET), tolerate=(ENOENT,)))
        return channel


def status(state: StateDir, record: Record, hierarchies: Hierarchies) -> str:
    """Return creating, created, running, paused or stopped (runtime-spec, runtime.md, "State")."""
    if not record.pid:
        return "creating"
    executed = has_executed(record.pid, record.start_time)
    if executed is None:
        return "stopped"
    if record.cgroup and Cgroup(record.cgroup, hierarchies).frozen():
        return "paused"
    return "running" if executed else "created"


def oci_state(record: Record, word: str) -> dict[str, object]:
    """Return the state as the specification wants it printed and passed to hooks."""
    state: dict[str, object] = {"ociVersion": OCI_VERSION, "id": record.id, "status": word}
    state["pid"] = record.pid if word != "stopped" else 0
    state["bundle"] = record.bundle
    if record.annotations:
        state["annotations"] = record.annotations
    return state


def cli_state(state: StateDir, record: Record, word: str) -> dict[str, object]:
    """Return the state with what runc and crun add to it: the root file system, the creation time and the owner."""
    return {**oci_state(record, word), "rootfs": record.rootfs, "created": state.created(), "owner": record.owner}


def listing(root: Path) -> tuple[StateDir, ...]:
    """Return all containers of a state root, sorted by id. Raises UsageError as ``check_root`` does."""
    check_root(root)
    with suppress(FileNotFoundError):
        names = [name for name in sorted(os.listdir(root)) if is_id(name)]
        return tuple(StateDir(root, name) for name in names if (root / name / _RECORD).exists())
    return ()
