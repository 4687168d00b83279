"""A bundle and the command line, for tests of the OCI runtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec import Struct

from runtime.cgroups import Cgroup, Hierarchies
from runtime.cgroups.placing import CGROUP_PARENT
from runtime.config.decode import encode
from runtime.config.default import OCI_VERSION, default_config
from runtime.launcher.build import COMMAND
from tests.waiting import until

SUCCESS = "+++ exited with 0 +++"
# Who decides what a command does: the planner that is there, or comes to be, or an interpreter for this call alone.
PLANNERS = ("resident", "off")
# What a process only sees, and what it changes of itself alone: its memory, descriptors, directory, signals, rights.
LOOKS = """
    access arch_prctl brk capget capset chdir clock_gettime close close_range connect dup dup2 dup3 epoll_create1
    execve execveat exit_group faccessat faccessat2 fchdir fcntl futex getcwd getdents64 getegid geteuid
    getgid getpid getrandom getsockname getsockopt gettid getuid ioctl lseek madvise mmap mprotect mremap
    munmap newfstatat openat2 pipe2 poll prctl pread64 prlimit64 read readlink readlinkat recvmsg rseq rt_sigaction
    rt_sigprocmask rt_sigreturn seccomp set_robust_list set_tid_address setgroups setresgid setresuid setsid setsockopt
    sigaltstack socket statfs statx sysinfo umask uname
""".split()


def environment(planner: str) -> dict[str, str]:
    """Ours, for a command that has this kind of planner."""
    return {**os.environ, **({"TESTBED_PLANNER": "off"} if planner == "off" else {})}


class Point(Struct, frozen=True):
    """The ``number``-th time that a process makes this ``call``; ``own``: the command's first process does. A kill is
    told by call and number and hits who comes there first; ``hit``: this process does."""

    call: str
    number: int
    own: bool
    hit: bool


class Runtime(Struct):
    """The command line with a state root of its own, and the bundle that its containers are made from; ``inside`` is
    what leads a command into the namespaces where it is to run."""

    root: Path
    bundle: Path
    inside: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        return [*self.inside, str(COMMAND), "--root", str(self.root), *arguments]

    def __call__(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # a container may keep them open
            code = subprocess.run(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=60,
                cwd=self.bundle,
                **options,
            ).returncode
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(arguments, code, out.read(), err.read())
        assert not check or done.returncode == 0, done.stderr
        return done

    def traced(self, options: Sequence[str], *arguments: str) -> list[tuple[str, str]]:
        """Run a command under strace: pairs of a pid and what it did. The first pid is the command's, after whose end
        nobody is traced any more."""
        null = subprocess.DEVNULL
        with tempfile.NamedTemporaryFile("r") as trace:
            command = ["strace", "-I2", "-f", "-q", "-o", trace.name, *options, *self.command(*arguments)]
            strace = subprocess.Popen(command, cwd=self.bundle, stdin=null, stdout=null, stderr=null)
            ended = re.compile(r"(\d+) .*^\1 +\+\+\+ ", re.MULTILINE | re.DOTALL)
            until(lambda: strace.poll() is not None or ended.match(Path(trace.name).read_text()), 60)
            strace.terminate()  # it lets go of a container that goes on
            strace.wait(30)
            lines = (line.split(maxsplit=1) for line in trace.read().splitlines())
            return [(pid, rest) for pid, rest in lines]

    def changes(self, *arguments: str) -> list[Point]:
        """The system calls with which a command and the processes that it starts change something that outlives the
        process that makes them, in order. Every call counts that is not known only to look."""
        lines = [(pid, rest) for pid, rest in self.traced([], *arguments) if re.match(r"\w+\(", rest)]
        made: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, int], str] = {}
        found = []
        for pid, rest in lines:
            call = rest.partition("(")[0]
            made[pid, call] += 1
            victim = first.setdefault((call, made[pid, call]), pid)
            if call not in LOOKS and (call != "openat" or "O_CREAT" in rest or "O_TRUNC" in rest):
                found.append(Point(call, made[pid, call], pid == lines[0][0], pid == victim))
        return found

    def calls(self, *arguments: str) -> list[tuple[str, int]]:
        """The system calls that a command's own process makes, in order, each with how often it has been made by then;
        without those that start and end it."""
        lines = self.traced([], *arguments)
        own = [rest.partition("(")[0] for pid, rest in lines if pid == lines[0][0] and re.match(r"\w+\(", rest)]
        seen: Counter[str] = Counter()
        found = []
        for call in own:
            seen[call] += 1
            if call not in ("execve", "execveat", "exit_group"):
                found.append((call, seen[call]))
        return found

    def ended_at(self, call: str, number: int, *arguments: str) -> str:
        """Run a command of which each process is killed that comes to make this call for that time: how the command's
        own ended, in strace's words."""
        lines = self.traced([f"-einject={call}:signal=KILL:when={number}"], *arguments)
        return next((rest for pid, rest in reversed(lines) if pid == lines[0][0] and rest.startswith("+++")), "")

    def killed_at(self, call: str, number: int, *arguments: str) -> bool:
        """The same: whether the command failed."""
        return self.ended_at(call, number, *arguments) != SUCCESS

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", name).stdout)
        return found

    def state_version(self) -> str:
        """The specification's version that states are of."""
        return OCI_VERSION

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        return found

    def configure(self, config: dict[str, Any]) -> None:
        (self.bundle / "config.json").write_text(json.dumps(config))

    def shell(self, script: str, **process: Any) -> None:
        """Make the container's process a shell with this script."""
        config = self.config()
        config["process"].update({"args": ["sh", "-c", script], "terminal": False, **process})
        self.configure(config)


def make_runtime(directory: Path, layer: Path, cgroup: str) -> Runtime:
    """A bundle with busybox and the default configuration, without a terminal and with a writable root."""
    bundle = directory / "bundle"
    bundle.mkdir()
    shutil.copytree(layer, bundle / "rootfs", symlinks=True)
    for empty in ("proc", "sys", "dev", "etc"):
        (bundle / "rootfs" / empty).mkdir(exist_ok=True)
    runtime = Runtime(directory / "state", bundle)
    config = encode(default_config())
    config["root"]["readonly"] = False
    config["linux"]["cgroupsPath"] = f"/{cgroup}"
    runtime.configure(config)
    runtime.shell("true")
    return runtime


def unique(name: str) -> str:
    """An id that no container of another test has, at the same time: without a cgroupsPath it is its cgroup's name."""
    return f"{name}-{uuid4().hex[:8]}"


def assert_no_cgroup(name: str, found: Hierarchies) -> None:
    """Nothing is left of the cgroup of a container without a cgroupsPath. What others have beside it stays, and the
    parent with that."""
    assert not Cgroup(f"{CGROUP_PARENT}/{name}", found).exists()
    parents = Cgroup(CGROUP_PARENT, found).directories()
    until(lambda: not any(_is_empty(parent) for parent in parents), 5, lambda: "an empty parent is left")


def _is_empty(cgroup: Path) -> bool:
    try:
        return not any(entry.is_dir() for entry in os.scandir(cgroup))
    except FileNotFoundError:
        return False


def said_on(master: int) -> bytes:
    """All that is written to a terminal, until nobody has its other side open; its master is closed then."""
    said = b""
    try:
        while data := os.read(master, 1000):
            said += data
    except OSError:  # EIO: the other side is closed
        pass
    os.close(master)
    return said
