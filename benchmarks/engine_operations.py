"""What engines ask of a runtime, by our command line, crun and runc, in one run.

    sudo .venv/bin/python benchmarks/engine_operations.py [--rounds 60] [--podman 0] [--json]

A round is the life of one container of each runtime, one after the other: create, state (of the created one), start,
exec of /bin/true (detached, with a process file, as podman has it), kill, delete. Each command is timed from its start
to its end; the bundles are those of each runtime's own `spec` command with the same root directory, without limits.
With --podman N, `podman run --rm` of /bin/true as well, N times each. Medians.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, field

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_bundle, make_rootfs, mount_namespace  # noqa: E402

OURS = str(ROOT / ".venv" / "bin" / "testbed-runtime")
OPERATIONS = ("create", "state", "start", "exec", "kill", "delete")
WARM_UP = 3
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PODMAN = """[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Candidate(Struct):
    """A runtime with its bundle; ``times`` in seconds, by operation."""

    command: str
    bundle: Path
    times: dict[str, list[float]] = field(default_factory=dict)

    def call(self, *arguments: str, timed: bool = True) -> None:
        null = subprocess.DEVNULL  # not a pipe: the container holds it open
        started = time.perf_counter()
        subprocess.run([self.command, *arguments], check=True, stdin=null, stdout=null, cwd=self.bundle)
        if timed:
            self.times.setdefault(arguments[0], []).append(time.perf_counter() - started)

    def life(self, timed: bool) -> None:
        name = f"testbed-benchmark-{os.getpid()}"
        process = str(self.bundle / "process.json")
        self.call("create", "--pid-file", str(self.bundle / "pid"), name, timed=timed)
        try:
            self.call("state", name, timed=timed)
            self.call("start", name, timed=timed)
            self.call("exec", "--detach", "--process", process, name, timed=timed)
            self.call("kill", name, "KILL", timed=timed)
            self._wait_until_dead()
            self.call("delete", name, timed=timed)
        except BaseException:
            subprocess.run([self.command, "delete", "--force", name], check=False)
            raise

    def _wait_until_dead(self) -> None:
        """What a runtime leaves is ours to reap (see ``measure``): the container ends when all in it are."""
        pid = int((self.bundle / "pid").read_text())
        while os.waitpid(-1, os.WNOHANG)[0] != pid:
            time.sleep(0.001)


def candidate(name: str, directory: Path, rootfs: Path) -> Candidate | None:
    """The runtime with a bundle of its own, or None when it is not here."""
    bundle = make_bundle(name, directory, rootfs, "/bin/sleep", "1000")
    if bundle is None:
        return None
    process = json.loads((bundle / "config.json").read_text())["process"]
    (bundle / "process.json").write_text(json.dumps({**process, "args": ["/bin/true"]}))
    return Candidate(name, bundle)


def podman_run(runtime: str, directory: Path, rootfs: Path, times: int) -> float:
    """The median of ``podman run --rm`` of /bin/true, in seconds."""
    storage = Path(tempfile.mkdtemp(dir=directory))  # podman takes no long paths
    (storage / "containers.conf").write_text(PODMAN)
    paths = [f"--{name}={storage / name}" for name in ("root", "runroot", "tmpdir")]
    options = [*paths, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", f"--runtime={shutil.which(runtime)}"]
    command = ["podman", *options, "run", "--rm", "--network=none", "--rootfs", str(rootfs), "/bin/true"]
    environment = {**os.environ, "CONTAINERS_CONF": str(storage / "containers.conf")}
    found = []
    for number in range(WARM_UP + times):
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
        if number >= WARM_UP:
            found.append(time.perf_counter() - started)
    subprocess.run(["umount", str(storage / "root" / "vfs")], check=False, stderr=subprocess.DEVNULL)
    return statistics.median(found)


def measure(rounds: int, podman: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds: by runtime, by operation."""
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        directory.chmod(0o711)
        rootfs = make_rootfs(directory)
        for empty in ("tmp", "run", "root"):
            (rootfs / empty).mkdir()
        shutil.copy2("/bin/busybox", rootfs / "bin" / "sleep")
        undo.enter_context(mount_namespace(directory))
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        names = (OURS, "crun", "runc")
        found = [one for name in names if (one := candidate(name, directory, rootfs)) is not None]
        for number in range(WARM_UP + rounds):
            for one in found:
                one.life(timed=number >= WARM_UP)
        medians = {
            Path(one.command).name: {name: statistics.median(one.times[name]) * 1e3 for name in OPERATIONS}
            for one in found
        }
        if podman and shutil.which("podman"):
            for one in found:
                seconds = podman_run(one.command, directory, rootfs, podman)
                medians[Path(one.command).name]["podman run"] = seconds * 1e3
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--podman", type=int, default=0, metavar="N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = measure(options.rounds, options.podman)
    if options.json:
        print(json.dumps(medians))
        return
    print(f"{'ms':12}" + "".join(f"{name:>18}" for name in medians))
    for operation in next(iter(medians.values())):
        print(f"{operation:12}" + "".join(f"{each[operation]:18.1f}" for each in medians.values()))


if __name__ == "__main__":
    perform(main)
