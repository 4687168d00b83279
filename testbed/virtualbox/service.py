"""VirtualBox's own service for one run: the process that knows all machines, and the programs that ask it.

It has its settings, its sockets and its processes apart from those of whoever uses VirtualBox here: its home and its
/tmp are the run's, its processes are in a cgroup of the run's, and the network that they see is that of the thread that
starts them. VirtualBox would start it by itself, and end it when nobody has asked for some seconds; then a start that
is timed would have to wait for it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.container import reap
from runtime.errors import PrerequisiteError, TestbedError
from runtime.files import read_bounded
from runtime.launcher import Spawned, launch
from runtime.output import printable
from runtime.plan.cgroup import clone_into, join_steps
from runtime.plan.constants import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC
from runtime.plan.steps import CloseOnExec, Exec, Mount, Plan, Setsid
from runtime.processes import send_signal, wait_exit
from runtime.speed import scale
from testbed.virtualbox.installation import MANAGER, SERVER, VirtualBox

_LIMIT_S = 60.0
_LOOK_S = 0.005
_LONGEST = 1 << 20


class Service:
    """The service of ``virtualbox``, with its files in ``folder`` and its processes in ``cgroup``."""

    def __init__(self, virtualbox: VirtualBox, folder: Path, cgroup: Cgroup) -> None:
        self._virtualbox = virtualbox
        self._folder = folder
        self._cgroup = cgroup
        self._asked = count(1)
        self._undo = ExitStack()

    def start(self) -> None:
        """Start it, in the calling thread's network, and return once it answers. Raises PrerequisiteError."""
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            for name in ("home", "tmp"):
                (self._folder / name).mkdir(mode=0o700, parents=True)
            undo.callback(self._cgroup.remove)
            undo.callback(self._cgroup.kill)
            self._cgroup.make_parent()
            self._cgroup.make(delegate=False)
            said, ready = self._folder / "service", self._folder / "pid"
            server = self.launch((SERVER, "--pidfile", str(ready)), self._cgroup, said)
            undo.callback(reap, server.pid)
            undo.callback(self._cgroup.kill)
            self._await(server, ready, said)
            self._undo = undo.pop_all()

    def _await(self, server: Spawned, ready: Path, said: Path) -> None:
        """Wait until the service has written its number, which it does when it answers."""
        limit_s = scale(_LIMIT_S)
        deadline_s = time.monotonic() + limit_s
        while not ready.exists():
            ended = os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            if ended or time.monotonic() > deadline_s:
                what = "ended at once" if ended else f"is not ready after {limit_s:g} s"
                last = _last_line(read_bounded(said, _LONGEST))
                raise PrerequisiteError(f"start {SERVER}: it {what}: {last}", "reinstall VirtualBox")
            time.sleep(_LOOK_S)

    def launch(self, words: tuple[str, ...], cgroup: Cgroup, said: Path) -> Spawned:
        """Start one of VirtualBox's programs in ``cgroup``; ``said``, a new file, takes what it says."""
        name, *arguments = words
        hierarchies = cgroup.hierarchies
        into = clone_into(hierarchies, cgroup.name)
        environment = (
            *(f"PATH={os.environ.get('PATH', os.defpath)}", "LANG=C.UTF-8", f"HOME={self._folder / 'home'}"),
            *("USER=root", "LOGNAME=root", f"VBOX_USER_HOME={self._folder / 'home'}"),
        )
        plan = Plan(
            parent=() if into else join_steps(hierarchies, cgroup.name),
            clone_flags=CLONE_NEWNS,
            into_cgroup=into,
            child=(
                Mount("", "/", "", MS_REC | MS_PRIVATE),
                Mount(str(self._folder / "tmp"), "/tmp", "", MS_BIND),  # where all of its sockets are
                CloseOnExec(),
                Setsid(),
                Exec((self._virtualbox.program(name), *arguments), environment),
            ),
        )
        with ExitStack() as undo:
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, null)
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, output)
            return launch(plan, stdin=null, stdout=output, stderr=output)

    def ask(self, *words: str) -> str:
        """Return what VBoxManage answers. Raises TestbedError with its words when it refuses, or does not answer."""
        said = self._folder / f"answer-{next(self._asked)}"
        command = f"{MANAGER} {' '.join(words)}"
        try:
            asked = self.launch((MANAGER, *words), self._cgroup, said)
            status = _await_end(asked.pid, scale(_LIMIT_S))
            answer = read_bounded(said, _LONGEST)
        finally:
            said.unlink(missing_ok=True)
        if status is None:
            raise TestbedError(f"{command}: no answer within {scale(_LIMIT_S):g} s", "see VirtualBox's own log")
        if status:
            raise TestbedError(f"{command}: {_find_error(answer)}")
        return answer.decode(errors="replace")

    def close(self) -> None:
        """End it, with all that it has started and that is in its cgroup, and remove its files."""
        self._undo.close()


def _await_end(pid: int, timeout_s: float) -> int | None:
    """Return the exit status of a child, 128 + n for signal n; None when it had to be killed."""
    pidfd = os.pidfd_open(pid)
    try:
        if not (ended := wait_exit(pidfd, timeout_s)):
            send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    status = reap(pid)
    return status if ended else None


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return printable(lines[-1]) if lines else "it said nothing"


def _find_error(said: bytes) -> str:
    """Return the first line that VirtualBox says of an error; details of its own code follow it."""
    lines = said.decode(errors="replace").strip().splitlines()
    return printable(next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no words"))
