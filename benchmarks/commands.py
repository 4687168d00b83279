"""What engines ask of a runtime, by our command line and by others, side by side in one run.

    sudo .venv/bin/python benchmarks/commands.py [--rounds 100] [--seed N] [--command PATH] [--no-newest] [--json]

A block holds, in random order, for each command line: the life of one container (create, state, start, exec of
/bin/true with a process file and detached, as podman has it, kill, delete), a run of /bin/true, and `podman run --rm`
of the same; and once the ruler, a static program that does nothing, which is what any call costs. Each container has a
bundle that nobody has seen before: a new directory, root file system and id. A command is timed from the call that
starts it to its end. Bundles and state lie in a tmpfs; podman calls each runtime through the same small program, which
gives it its settings. Medians, and what ours are divided by the others'.

Columns: ours with its planner running, and without one (TESTBED_PLANNER=off); crun and runc as this host has them; the
crun of the newest Debian, which the first run fetches.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msgspec import Struct, field

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bundle import Bundles  # noqa: E402
from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from benchmarks.peers import Peer, compile_program, make_peer, mount_namespace, newest_crun, wrap  # noqa: E402
from runtime.errors import PrerequisiteError, TestbedError  # noqa: E402
from runtime.launcher.build import COMMAND  # noqa: E402
from runtime.lease import CGROUP_ROOT, lease  # noqa: E402

OURS, ABSENT, CRUN, RUNC, NEWEST = "ours", "ours, no planner", "crun", "runc", "newest crun"
COMMANDS = ("create", "state", "start", "exec", "kill", "delete", "run", "podman run")
RULER = "a program that does nothing"
RATIOS = ((OURS, CRUN), (OURS, NEWEST), (OURS, RUNC), (ABSENT, CRUN), (ABSENT, NEWEST))
WARM_UP = 3
# The kernel takes a container's namespaces and cgroups apart after its end; let little of that fall on the next.
SETTLE_S = 0.02
DEATH_S = 10.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PODMAN = """[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Candidate(Struct):
    """A command line, where its state is, and its times in seconds by command."""

    peer: Peer
    state: Path
    bundles: Bundles
    times: dict[str, list[float]] = field(default_factory=dict)

    def call(self, *arguments: str) -> None:
        """Perform a command, and note the seconds that it takes."""
        seconds = timed([*self.peer.words, "--root", str(self.state), *arguments], dict(self.peer.settings))
        self.times.setdefault(arguments[0], []).append(seconds)

    def life(self) -> None:
        """The life of a container that sleeps, from create to delete."""
        with self.bundles.make("/bin/sleep", "1000") as bundle:
            name, process, pid_file = bundle.name, str(bundle / "process.json"), bundle / "pid"
            try:
                self.call("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
                self.call("state", name)
                self.call("start", name)
                self.call("exec", "--detach", "--process", process, name)
                self.call("kill", name, "KILL")
                wait_for(int(pid_file.read_text()))
                self.call("delete", name)
            except BaseException:
                with suppress(TestbedError):
                    self.call("delete", "--force", name)
                raise

    def run(self) -> None:
        """A container of /bin/true, to its end."""
        with self.bundles.make("/bin/true") as bundle:
            self.call("run", "--bundle", str(bundle), bundle.name)


class Podman(Struct, frozen=True):
    """podman, with storage of its own and a candidate as its runtime."""

    candidate: Candidate
    storage: Path

    def run(self) -> None:
        """``podman run`` of /bin/true, to its end."""
        with tempfile.TemporaryDirectory(dir=self.storage) as directory:
            rootfs = make_rootfs(Path(directory))
            paths = {"root": "root", "runroot": "run", "tmpdir": "tmp"}  # runroot takes 50 characters
            own = [f"--{name}={self.storage / path}" for name, path in paths.items()]
            options = [*own, "--storage-driver=vfs", f"--runtime={self.storage / 'runtime'}"]
            container = ["--rm", "--network=none", f"--cgroup-parent=/{self.candidate.bundles.cgroup}"]
            words = ["podman", *options, "run", *container, "--rootfs", str(rootfs), "/bin/true"]
            seconds = timed(words, {"CONTAINERS_CONF": str(self.storage / "containers.conf")})
        self.candidate.times.setdefault("podman run", []).append(seconds)


def make_podman(candidate: Candidate, storage: Path) -> Podman:
    """podman with its files in the new directory ``storage``."""
    storage.mkdir()
    (storage / "containers.conf").write_text(PODMAN)
    wrap(candidate.peer, ("--root", str(candidate.state)), storage / "runtime")
    return Podman(candidate, storage)


def timed(words: list[str], settings: dict[str, str]) -> float:
    """The seconds from a program's start to its end. Raises TestbedError, with what it said, when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "TESTBED_PLANNER"} | settings
    with os.fdopen(os.memfd_create("stderr"), "r+b") as said, Path(os.devnull).open("r+b") as null:
        streams = [(os.POSIX_SPAWN_DUP2, each.fileno(), fd) for fd, each in enumerate((null, null, said))]
        started = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, environment, file_actions=streams)
        status = os.waitpid(pid, 0)[1]
        seconds = time.perf_counter() - started
        if status:
            said.seek(0)
            code = os.waitstatus_to_exitcode(status)
            raise TestbedError(f"{' '.join(words)}: exit status {code}\n    {said.read().decode(errors='replace')}")
    return seconds


def wait_for(pid: int) -> None:
    """Reap what runtimes leave us (see ``subreaper``) until this one has ended. Raises TestbedError."""
    deadline = time.monotonic() + DEATH_S
    while os.waitpid(-1, os.WNOHANG)[0] != pid:
        if time.monotonic() > deadline:
            raise TestbedError(f"process {pid} was killed and does not end")
        time.sleep(0.001)


@contextmanager
def subreaper() -> Iterator[None]:
    """Be the parent of all that our children leave; nothing of it outlives this."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while left := children.read_text().split():
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups below ``name``, and itself, from every hierarchy that is seen here: each runtime joins others.

    Nothing is in them any more. Raises TestbedError when one stays.
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in [Path(words[1]) for words in mounts if words[2] in ("cgroup", "cgroup2")]:
        below = sorted((mount / name).glob("**/"), reverse=True)
        for directory in below:
            until_removed(directory)
        with suppress(OSError):  # others have theirs in it
            (mount / name).parent.rmdir()


def until_removed(directory: Path) -> None:
    """Remove a cgroup, of whose last process the kernel may still hold something."""
    deadline = time.monotonic() + DEATH_S
    while directory.exists():
        try:
            directory.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TestbedError(f"remove cgroup {directory}: {error.strerror}") from error
            time.sleep(0.001)


def find_peers(command: str, with_newest: bool) -> list[Peer]:
    """The command lines that are here, ours first; without the newest crun, the reason goes to standard error."""
    newest: tuple[str, ...] = ()
    try:
        newest = newest_crun() if with_newest else ()
    except PrerequisiteError as error:
        print(f"without the newest crun: {error}", file=sys.stderr)
    wanted = {
        OURS: ((command,), {}),
        ABSENT: ((command,), {"TESTBED_PLANNER": "off"}),
        CRUN: (("crun",), {}),
        RUNC: (("runc",), {}),
        NEWEST: (newest, {}),
    }
    return [peer for name, (words, more) in wanted.items() if words and (peer := make_peer(name, words, more))]


def measure(peers: Sequence[Peer], rounds: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Times in seconds, by command line and by command; the ruler's first."""
    with ExitStack() as undo:
        undo.callback(signal.signal, signal.SIGINT, signal.default_int_handler)
        name = f"benchmark-{os.getpid()}"
        directory = undo.enter_context(mount_namespace(undo.enter_context(lease(name))))
        undo.callback(remove_cgroups, f"{CGROUP_ROOT}/{name}")
        undo.enter_context(subreaper())
        bundles = Bundles(directory, f"{CGROUP_ROOT}/{name}", peers[0].words)
        candidates = [Candidate(peer, directory / f"state-{number}", bundles) for number, peer in enumerate(peers)]
        nothing = compile_program("nothing.c", directory / "nothing")
        ruler: list[float] = []
        tasks: list[Callable[[], None]] = [lambda: ruler.append(timed([str(nothing)], {}))]
        for number, each in enumerate(candidates):
            tasks += [each.life, each.run]
            if shutil.which("podman"):
                tasks.append(make_podman(each, directory / f"podman{number}").run)
        undo.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C does not keep us from cleaning up
        order = random.Random(seed)
        for block in range(WARM_UP + rounds):
            if block == WARM_UP:
                ruler.clear()
                for each in candidates:
                    each.times.clear()
            for task in order.sample(tasks, len(tasks)):
                time.sleep(SETTLE_S)
                task()
    return {RULER: {"run": ruler}, **{each.peer.name: each.times for each in candidates}}


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """What one command line's medians are divided by another's, by the two names and by command."""
    return {
        f"{one} / {other}": {name: medians[one][name] / medians[other][name] for name in medians[one]}
        for one, other in RATIOS
        if one in medians and other in medians
    }


def table(medians: dict[str, dict[str, float]], versions: dict[str, str]) -> str:
    """The medians in milliseconds and their ratios, in Markdown."""
    divided = ratios(medians)
    columns = [f"{name} {version}" for name, version in versions.items()]
    lines = [["ms", *columns, *divided], ["---"] + ["--:"] * (len(columns) + len(divided))]
    for command in [each for each in COMMANDS if each in medians[OURS]]:
        found = [f"{medians[name][command]:.2f}" for name in versions]
        lines.append([command, *found, *(f"{each[command]:.2f}" for each in divided.values())])
    ruler = f"{RULER}: {medians[RULER]['run']:.2f} ms"
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{ruler}"


def in_milliseconds(times: dict[str, dict[str, list[float]]], part: int) -> dict[str, dict[str, float]]:
    """A quartile (1 to 3) of the times, in milliseconds."""
    return {
        name: {command: statistics.quantiles(found, n=4)[part - 1] * 1e3 for command, found in commands.items()}
        for name, commands in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="blocks, two or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", default=str(COMMAND), help="our command line")
    parser.add_argument("--newest", action=argparse.BooleanOptionalAction, default=True, help="a newer Debian's crun")
    parser.add_argument("--json", action="store_true", help="to standard output, beside the table")
    options = parser.parse_args()
    peers = find_peers(options.command, options.newest)
    times = measure(peers, max(2, options.rounds), options.seed)
    medians, versions = in_milliseconds(times, 2), {peer.name: peer.version for peer in peers}
    print(table(medians, versions), file=sys.stderr)
    if options.json:
        document = {
            "rounds": options.rounds,
            "seed": options.seed,
            "versions": versions,
            "median_ms": medians,
            "lower_quartile_ms": in_milliseconds(times, 1),
            "upper_quartile_ms": in_milliseconds(times, 3),
            "ratios": ratios(medians),
        }
        print(json.dumps(document))


if __name__ == "__main__":
    perform(main)
