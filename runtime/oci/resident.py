"""Keep a planner running: manage the socket where it listens, the threads that serve, and the time when it ends."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.cgroups import hierarchies
from runtime.oci.caller import QUESTION
from runtime.oci.planner import answer
from runtime.planners import CGROUP, peer, remove_dead

_TICK_S = 1.0
# For so many ticks another planner is waited for.
_PATIENCE = 5
_SPARE_THREADS = 2
_BACKLOG = 128


class Sources:
    """The source files of this process: when one changes, modules loaded later no longer fit those loaded before."""

    def __init__(self) -> None:
        here = Path(__file__).resolve().parent.parent
        self._paths = [str(path) for path in here.rglob("*.py")]
        self._before = self._looks()

    def _looks(self) -> list[tuple[int, int]]:
        with suppress(OSError):
            return [(one.st_mtime_ns, one.st_ino) for one in map(os.stat, self._paths)]
        return []

    def changed(self) -> bool:
        """Tell whether one of the files has changed."""
        return self._looks() != self._before


class Namespace:
    """The mount namespace that we are in, which we must not keep alive on our own."""

    def __init__(self) -> None:
        self._own = self._of("self")
        self._is_hosts = self._own == self._of("1")

    @staticmethod
    def _of(pid: str) -> int:
        with suppress(OSError):
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino
        return 0

    def is_deserted(self) -> bool:
        """Tell whether no other process that we can see is in the namespace; the host's is never deserted."""
        if self._is_hosts:
            return False
        others = (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
        return all(self._of(name) != self._own for name in others)


class Mounts:
    """The mounts that this process sees. The cgroup hierarchies among them are cached; when a mount changes, poll(2) on
    mountinfo reports it (proc_pid_mounts(5))."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLPRI)

    def check(self) -> None:
        """Clear the cache if a mount has changed since the last check."""
        if self._poll.poll(0):
            hierarchies.cache_clear()


class Turn:
    """A client and the right to accept the next one. Its thread gives the right up when it has to wait; most commands
    end before that, so no other thread is woken for them."""

    def __init__(self, connection: socket.socket, lock: threading.Lock) -> None:
        self.connection = connection
        self._lock: threading.Lock | None = lock

    def end(self) -> None:
        """Let another thread accept; further calls have no effect."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


class Planner:
    """Threads that accept clients at one socket, one at a time, and serve them concurrently."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._spare = 0
        self.busy = 0
        self._told_to_end = False
        self.last_s = time.monotonic()
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._mounts = Mounts()
        listening.settimeout(_TICK_S)

    def stay(self, idle_s: float, is_found: Callable[[], bool]) -> None:
        """Serve clients until none has come for ``idle_s``, the sources have changed, clients cannot find us any more,
        our mount namespace is deserted, or SIGTERM arrives. Then accept no more, but finish serving the rest."""
        sources, own = Sources(), Namespace()
        signal.signal(signal.SIGTERM, self._end)
        self._add_thread()
        with own_cgroup():  # clients are served meanwhile: on a busy host the move may take long
            while is_found() and not sources.changed() and not (self.busy == 0 and own.is_deserted()):
                time.sleep(_TICK_S)
                quiet_s = time.monotonic() - self.last_s
                if self._told_to_end or (self.busy == 0 and quiet_s > idle_s):
                    break
                if self.busy == 0 and quiet_s > _TICK_S:
                    gc.collect()
            self._listening.close()
            while self.busy:
                time.sleep(_TICK_S / 10)

    def _end(self, *_: object) -> None:
        self._told_to_end = True

    def _add_thread(self) -> None:
        with suppress(RuntimeError):  # the limit of threads may be reached; the existing ones continue
            threading.Thread(target=self._serve, daemon=True).start()
            self._spare += 1

    def _serve(self) -> None:
        while (turn := self._accepted()) is not None:
            with self._lock:
                self._spare -= 1
                self.busy += 1
                self._mounts.check()
                if self._spare == 0:
                    self._add_thread()
            try:
                answer(turn.connection, turn.end)
            finally:
                turn.end()
                with self._lock:
                    self.busy -= 1
                    self.last_s = time.monotonic()
                    enough = self._spare >= _SPARE_THREADS
                    self._spare += not enough
            if enough:
                return

    def _accepted(self) -> Turn | None:
        """Accept the next client; return None when no more are accepted."""
        self._turn.acquire()
        while self._listening.fileno() >= 0:
            try:
                return Turn(self._listening.accept()[0], self._turn)
            except TimeoutError:
                continue
            except OSError:
                self._refuse()
        self._turn.release()
        return None

    def _refuse(self) -> None:
        """Refuse a client when no descriptor is left for it; the client then does without us."""
        with suppress(OSError):
            os.close(self._reserve)
            with suppress(OSError):
                self._listening.accept()[0].close()
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def own_directory(candidates: Sequence[str]) -> Path | None:
    """Return the first of the directories that only we can write to, making it if need be; None if there is none."""
    for path in map(Path, candidates):
        with suppress(OSError):
            if path.parent.name.startswith("testbed-runtime-"):  # it is in /tmp, where anybody may have made it
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if not _is_ours(path.parent):
                    continue
            path.mkdir(mode=0o700, exist_ok=True)
            if _is_ours(path):
                return path
    return None


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


class Socket:
    """The name of a socket in a directory of ours; at most one planner listens at it."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._inode = 0

    @contextmanager
    def _locked(self) -> Iterator[str]:
        """Keep others from changing the name meanwhile; yield a path that is short enough for a socket address."""
        import fcntl

        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield f"/proc/self/fd/{held}/{self._name}"
        finally:
            os.close(held)
            os.close(lock)

    def listen(self) -> socket.socket | None:
        """Listen, or return None if a planner already does; the name is taken from one that does not answer."""
        with self._locked() as path:
            if _answers(path):
                return None
            remove_dead(self._directory)
            # Until it listens it looks like one that was killed: clients go elsewhere, and `clean` removes it.
            unfinished = f"{path}.new"
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(unfinished)
            listening.listen(_BACKLOG)
            os.rename(unfinished, path)
            self._inode = os.lstat(path).st_ino
            return listening

    def is_ours(self) -> bool:
        """Tell whether the name still refers to the socket at which we listen."""
        with suppress(OSError):
            return (self._directory / self._name).lstat().st_ino == self._inode
        return False

    def remove(self) -> None:
        """Remove the name unless another planner has taken it."""
        with self._locked() as path:
            if self.is_ours():
                os.unlink(path)


def _answers(path: str) -> bool:
    """Tell whether a planner of our user listens at the path and answers.

    On a busy host it may not come to that for seconds, unlike one that was stopped, which is not waited for.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other, suppress(OSError):
        other.settimeout(_TICK_S)
        other.connect(path)
        pid, user = peer(other)
        if user != os.geteuid():
            return False
        other.sendall(QUESTION)
        for _ in range(_PATIENCE):
            with suppress(TimeoutError):
                return bool(other.recv(1))
            if _is_stopped(pid):
                return False
    return False


def _is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped (proc_pid_stat(5)), or is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "TtZXx"
    except (OSError, IndexError):
        return True


@contextmanager
def own_cgroup() -> Iterator[None]:
    """Move, where we may, from the caller's cgroups into one of our own, and remove that at the end."""
    entered: list[Path] = []
    for mount in hierarchies().used:
        with suppress(OSError):
            (mount / CGROUP).mkdir(exist_ok=True)
            (mount / CGROUP / "cgroup.procs").write_text("0")
            entered.append(mount)
    try:
        yield
    finally:
        for mount in entered:
            with suppress(OSError):
                (mount / "cgroup.procs").write_text("0")
                (mount / CGROUP).rmdir()


def stay(listening: socket.socket, idle_s: float, is_found: Callable[[], bool]) -> None:
    """Serve the clients that connect to the socket, until none has for ``idle_s`` or none can; see Planner.stay."""
    import runtime.oci.execution
    import runtime.oci.queries  # noqa: F401  what calls need is there before they come

    gc.collect()
    gc.freeze()
    Planner(listening).stay(idle_s, is_found)
