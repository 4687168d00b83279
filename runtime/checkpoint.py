"""This module saves a running container with CRIU and starts copies of it, each in its own cgroup, network and root.

CRIU depends on the kernel more than anything else here: whether it works is probed by saving and restoring a process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOTSUP
from pathlib import Path

from msgspec import Struct

from runtime.cgroups import Cgroup
from runtime.container import Container, check_startable
from runtime.errors import PrerequisiteError, TestbedError, WorkloadError
from runtime.launcher import STATIC_BINARY, Launch, Spawned, launch
from runtime.plan.checkpoint import INPUT_FD, Saved, dump_command, original_plan, restore_plan
from runtime.plan.encode import encode
from runtime.plan.network import Attachment
from runtime.plan.steps import Plan, WaitPath
from runtime.processes import wait_exit
from runtime.spec import Process, Resources, Spec, User
from runtime.unionfs.overlay import WritableLayer

# Where a user's PATH does not lead, though root's programs are there.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_CHECK_TIMEOUT_S = 30.0
_DUMP_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 60.0
# Of a log, its end; and how many of the errors in it are quoted.
_LOG_BYTES, _QUOTED_ERRORS = 1 << 18, 3
NOBODY = 65534
_WALLS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
_CAP_SYS_RESOURCE = 24
_HINT = (
    "CRIU has to fit the kernel: 4.2 or later from Linux 6.16 on (criu.org; Debian 13 has 4.1). Without it, measure"
    " container-pooled, which needs nothing"
)

_LACKING = (
    "We have not CAP_SYS_RESOURCE, without which CRIU cannot read the limits of another user's process (prlimit(2)):"
    " run where root has it"
)


class Criu(Struct, frozen=True):
    """An installed CRIU: the path of its program, and its ``version`` as it tells it."""

    program: str
    version: str

    @property
    def skips_lock(self) -> bool:
        """Whether it can do without locking the network, as older ones cannot."""
        major = self.version.partition(".")[0]
        return major.isdecimal() and int(major) >= 4


class Original(Struct):
    """A container that is to be saved, with what it has on disk below ``folder``."""

    container: Container
    spec: Spec
    folder: Path


def find_criu() -> Criu:
    """Return the CRIU that is installed. Raises PrerequisiteError without one, or when it says that it cannot work on
    this kernel."""
    program = shutil.which("criu", path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")
    if program is None:
        raise PrerequisiteError(
            "restore containers: criu is not installed (no such program on the PATH)", f"apt install criu. {_HINT}"
        )
    version = _run((program, "--version"), _CHECK_TIMEOUT_S)[1].removeprefix("Version:").split("\n")[0].strip()
    status, said = _run((program, "check"), _CHECK_TIMEOUT_S)
    if status != 0:
        raise PrerequisiteError(f"restore containers: {program} check, CRIU {version}: {_errors(said)}", _HINT)
    return Criu(program, version)


def _run(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Return the exit status of a command and the end of what it said; -1 when it cannot be run or takes too long."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return -1, f"no end within {timeout_s:g} s"
    except OSError as error:
        return -1, str(error.strerror)
    return done.returncode, (done.stdout + done.stderr)[-_LOG_BYTES:].decode(errors="replace").strip()


def _errors(text: str) -> str:
    """Return the first errors in what CRIU wrote, or its last line: what follows the first follows from it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[line.index("Error ") :] for line in lines if "Error " in line]
    return "; ".join(errors[:_QUOTED_ERRORS] or lines[-1:]) or "it said nothing"


def _read_log(path: Path) -> str:
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_BYTES))
        return stream.read(_LOG_BYTES).decode(errors="replace")
    return ""


@contextmanager
def _empty_input() -> Iterator[int]:
    """A pipe that has nothing to read and nobody to write to it, which CRIU can give another name to, unlike a file of
    the host's."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def start_original(spec: Spec, *, name: str, stdout: int, folder: Path, attachment: Attachment | None) -> Original:
    """Start a container that can be saved. ``stdout`` is a pipe; ``folder`` is empty and takes what it writes.

    Raises what ``runtime.container.start`` raises.
    """
    requested_ns = time.monotonic_ns()
    cgroup = check_startable(name)
    for below in ("upper", "work", "images"):
        (folder / below).mkdir()
    writable = WritableLayer(str(folder / "upper"), str(folder / "work"))
    plan = original_plan(spec, cgroup.hierarchies, name, attachment, writable)
    with _empty_input() as stdin, ExitStack() as undo:
        undo.callback(cgroup.remove)
        cgroup.make_parent()
        process = launch(plan, stdin=stdin, stdout=stdout, stderr=stdout)
        undo.pop_all()
    return Original(Container(name, cgroup, process, requested_ns), spec, folder)


def save(original: Original, criu: Criu) -> Saved:
    """Save a container and end it.

    Raises WorkloadError with CRIU's reason when it cannot be saved, PrerequisiteError when that is the kernel's.
    """
    pid, images = original.container.process.pid, original.folder / "images"
    stdin, stdout = (os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1))
    network = os.stat(f"/proc/{pid}/ns/net").st_ino
    command = dump_command(criu.program, pid, network, str(images), skips_lock=criu.skips_lock)
    status, said = _run(command, _DUMP_TIMEOUT_S)
    if status != 0:
        why = _errors(_read_log(images / "dump.log") or said)
        what = f"save container {original.container.name} with CRIU {criu.version}: {why}"
        if os.strerror(ENOTSUP) in why:  # the kernel's answer, not the service's fault
            raise PrerequisiteError(f"{what} (on Linux {os.uname().release})", _HINT)
        raise WorkloadError(what, "a service that holds connections before anyone asks it anything cannot be saved")
    original.container.delete()
    return Saved(str(images), str(original.folder / "upper"), stdin, stdout)


class Restoring:
    """A copy that CRIU is making. ``finish`` waits for it; ``delete`` ends it at any time before that.

    ``created_ns`` is when CRIU ran in the copy's cgroup, network namespace and root.
    """

    def __init__(self, name: str, cgroup: Cgroup, criu: Criu, work: Path, spawned: Spawned, requested_ns: int) -> None:
        self.name, self.cgroup, self.requested_ns, self.created_ns = name, cgroup, requested_ns, spawned.executed_ns
        self._criu, self._work, self._spawned = criu, work, spawned
        self._finished = False

    def finish(self, timeout_s: float) -> Container:
        """Return the copy once CRIU has made it and has ended. Raises WorkloadError, with what CRIU said, when it has
        failed or takes longer; nothing is left of it then."""
        with ExitStack() as undo:
            undo.callback(self.delete)
            pidfd = os.pidfd_open(self._spawned.pid)
            try:
                in_time = wait_exit(pidfd, timeout_s)
            finally:
                os.close(pidfd)
            if not in_time:
                raise WorkloadError(f"restore container {self.name}: CRIU did not end within {timeout_s:g} s")
            status = os.waitstatus_to_exitcode(os.waitpid(self._spawned.pid, 0)[1])
            self._finished = True
            if status != 0:
                why = _errors(_read_log(self._work / "restore.log"))
                what = f"restore container {self.name} with CRIU {self._criu.version}: {why}"
                raise WorkloadError(f"{what} (exit status {status})")
            pid = int((self._work / "pid").read_text())
            process = Spawned(pid, self._spawned.cloned_ns, time.monotonic_ns())
            undo.pop_all()
        return Container(self.name, self.cgroup, process, self.requested_ns)

    def delete(self) -> None:
        """End CRIU and what it has made so far, and remove the cgroup."""
        if not self._finished:
            with suppress(ProcessLookupError):
                os.kill(self._spawned.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._spawned.pid, 0)
            self._finished = True
        children = self.cgroup.pids()
        self.cgroup.kill()
        for pid in children:  # the copy's first process is our child
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.cgroup.remove()


def restore(
    spec: Spec, saved: Saved, criu: Criu, *, name: str, stdout: int, work: Path, attachment: Attachment | None
) -> Restoring:
    """Begin to make a copy of a saved container whose cgroup is ``name``, with the links and the hosts of ``spec``.

    ``work`` is an empty directory, not below /tmp. Raises what ``runtime.container.start`` raises.
    """
    requested_ns = time.monotonic_ns()
    cgroup = check_startable(name)
    plan = restore_plan(spec, cgroup.hierarchies, name, attachment, saved, criu.program, str(work))
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    with ExitStack() as opened, ExitStack() as undo:
        opened.callback(os.close, null)
        undo.callback(cgroup.remove)
        cgroup.make_parent()
        launching = opened.enter_context(Launch(plan, {0: null, 1: stdout, 2: stdout, INPUT_FD: null}))
        if launching.next() is not None:
            raise TestbedError(f"restore container {name}: the launcher asked for an answer that nobody has")
        spawned = Spawned(launching.pid, launching.cloned_ns, time.monotonic_ns())
        undo.pop_all()
    return Restoring(name, cgroup, criu, work, spawned, requested_ns)


def probe(criu: Criu, name: str, folder: Path) -> tuple[str, ...]:
    """Save a process of ours, the launcher waiting for a file that never comes, and restore it, for real. It is not
    root's, as most services are not.

    Returns what confined the process before and does not any more, by its name in /proc/PID/status: CRIU before 4.0
    loses ``NoNewPrivs``. ``name`` is that of a cgroup to be, ``folder`` an empty directory. Raises PrerequisiteError
    with what was tried and what CRIU said when it cannot be done here. Nothing is left but the folder.
    """
    layer = folder / "layer"
    for directory in (layer, folder / "work", folder / "saved"):
        directory.mkdir()
    shutil.copy2(STATIC_BINARY, layer / "wait")
    (layer / "plan").write_bytes(encode(Plan((WaitPath("/never", 600_000),))))
    process = Process(args=("/wait", "/plan"), user=User(NOBODY, NOBODY))
    spec = Spec(process, (str(layer),), "probe", Resources(64 << 20, 1.0, 64))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        with ExitStack() as undo:
            original = start_original(spec, name=name, stdout=writing, folder=folder / "saved", attachment=None)
            undo.callback(original.container.delete)
            before = _confinement(original.container.process.pid)
            saved = save(original, criu)
            making = restore(spec, saved, criu, name=name, stdout=writing, work=folder / "work", attachment=None)
            copy = making.finish(_PROBE_TIMEOUT_S)
            undo.callback(copy.delete)
            if (status := copy.wait(0.05)) is not None:
                raise WorkloadError(f"the restored process ended at once, with exit status {status}")
            after = _confinement(copy.process.pid)
            return tuple(wall for wall, value in before.items() if after.get(wall) != value)
    except TestbedError as error:
        tried = f"a container of ours was saved and restored with {criu.program}, CRIU {criu.version}"
        kernel = f"Linux {os.uname().release}"
        why = _HINT if _may_read_limits() else _LACKING
        raise PrerequisiteError(
            f"restore containers: it does not work on this host ({kernel}): {error.message}",
            f"tried: {tried}. {why}",
        ) from error
    finally:
        os.close(reading)
        os.close(writing)


def _read_status(pid: int | str) -> dict[str, str]:
    """Return the lines of /proc/PID/status by their names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _confinement(pid: int) -> dict[str, str]:
    return {name: value for name, value in _read_status(pid).items() if name in _WALLS}


def _may_read_limits() -> bool:
    """Return whether we have CAP_SYS_RESOURCE, which prlimit(2) of a process of another user takes."""
    return bool(int(_read_status("self").get("CapEff", "0"), 16) >> _CAP_SYS_RESOURCE & 1)
