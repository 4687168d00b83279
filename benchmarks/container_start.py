"""Container start of /bin/true to its end, beside the floor and the peers, in one run.

    sudo .venv/bin/python benchmarks/container_start.py [--blocks 5] [--json]

The floor is the last row of reference/start_floor.c: the fewest system calls for a process with namespaces, an
overlay root and a pids cgroup, 200 times in a row. crun and runc run the same root directory from a bundle of
their own `spec` command, without limits, and so does our command line, whose first run of a bundle is the
interpreter's and whose next ones are not (a row each). Through its Python API our runtime starts a container with all
namespaces, overlay, cgroup limits, seccomp, /dev and masked paths. As the floor is taken in a row, so are all: each
block holds the floor's program and 50 runs of every runtime one after another, and the median is taken over all blocks.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime import container  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.plan.constants import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402
from runtime.oci.state import default_root  # noqa: E402

RUNS_PER_BLOCK = 50
# The kernel takes namespaces and cgroups apart after their last process is gone; let that not fall on the next.
SETTLE_S = 2.0
GIVE_BACK_S = 10.0


def make_rootfs(directory: Path) -> Path:
    """A root directory with a static busybox as /bin/true."""
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", rootfs / "bin" / "true")
    return rootfs


def floor_usec(directory: Path, rootfs: Path) -> float:
    """The median of the last row of start_floor.c, in microseconds."""
    binary = directory / "start_floor"
    if not binary.exists():
        source = ROOT / "benchmarks" / "reference" / "start_floor.c"
        subprocess.run(["gcc", "-O2", "-w", "-o", str(binary), str(source)], check=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        output = subprocess.run([str(binary), str(rootfs), work], check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"median\s+(\d+) us", output)[-1])


@contextmanager
def mount_namespace(directory: Path) -> Iterator[None]:
    """A mount namespace of our own with hugetlb as cgroup v1, without which crun 1.8 refuses a v1 host.

    While a cgroup of v2 uses that controller, v2 keeps it; then v1 alone is seen here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "make a mount namespace")
    hugetlb = directory / "hugetlb"
    hugetlb.mkdir()
    is_version_two = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if not is_version_two and libc.mount(b"cgroup", str(hugetlb).encode(), b"cgroup", 0, b"hugetlb"):
        libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)
    try:
        yield
    finally:
        libc.umount2(str(hugetlb).encode(), MNT_DETACH)  # EINVAL: nothing was mounted
        give_back_hugetlb(libc, str(hugetlb).encode())


def give_back_hugetlb(libc: ctypes.CDLL, directory: bytes) -> None:
    """Have the controller return to cgroup v2.

    A hierarchy that is unmounted while removed cgroups of it still end stays, with its controller and out of sight; it
    goes when it is mounted and unmounted once more.
    """
    deadline = time.monotonic() + GIVE_BACK_S
    time.sleep(1)  # it takes its time to go
    while re.search(r"^hugetlb\t[1-9]", Path("/proc/cgroups").read_text(), re.M) and time.monotonic() < deadline:
        if libc.mount(b"cgroup", directory, b"cgroup", 0, b"hugetlb") == 0:
            libc.umount2(directory, 0)
        time.sleep(1)


def make_bundle(name: str, directory: Path, rootfs: Path, *args: str) -> Path | None:
    """A bundle of what an OCI runtime's own `spec` command writes, with this program; None when it is not here."""
    if shutil.which(name) is None:
        return None
    bundle = directory / Path(name).name
    bundle.mkdir()
    subprocess.run([name, "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=list(args), terminal=False)
    config["process"].pop("rlimits", None)  # hard limits cannot be raised without CAP_SYS_RESOURCE
    config["root"] = {"path": str(rootfs), "readonly": False}
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def peer(name: str, directory: Path, rootfs: Path) -> Callable[[], None] | None:
    """One run of /bin/true with an OCI runtime's command line, or None when it is not here."""
    bundle = make_bundle(name, directory, rootfs, "/bin/true")
    if bundle is None:
        return None

    def run() -> None:
        identity = f"testbed-benchmark-{os.getpid()}"
        command = [name, "run", "--bundle", str(bundle), identity]
        if code := subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise WorkloadError(f"{' '.join(command)}: exit status {code}", "what it said stands above")

    return run


def unprepared(run: Callable[[], None]) -> Callable[[], None]:
    """The same, by a command line that has never seen the bundle."""

    def first() -> None:
        shutil.rmtree(default_root() / "@prepared", ignore_errors=True)
        run()

    return first


def ours(rootfs: Path, lease_name: str) -> Callable[[], None]:
    """One run of /bin/true through our API: start, wait, delete."""
    spec = Spec(Process(args=("/bin/true",)), (str(rootfs),), "benchmark", Resources(64 << 20, 1.0, 64))
    name = cgroup_name(lease_name, "true")

    def run() -> None:
        if container.run(spec, name=name) != 0:
            raise WorkloadError("run /bin/true as a container: it failed")

    return run


def measure(blocks: int) -> dict[str, float]:
    """Medians in microseconds, by what was run, the floor first."""
    name = f"benchmark-{os.getpid()}"
    with ExitStack() as undo:
        undo.enter_context(lease(name))
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        rootfs = make_rootfs(directory)
        undo.enter_context(mount_namespace(directory))
        floors: list[float] = []
        candidates = {"testbed API": ours(rootfs, name)}
        for peer_name in ("crun", "runc", str(ROOT / ".venv" / "bin" / "testbed-runtime")):
            if run := peer(peer_name, directory, rootfs):
                candidates[f"{Path(peer_name).name} run"] = run
        candidates["testbed-runtime run, the first"] = unprepared(candidates["testbed-runtime run"])
        times: dict[str, list[float]] = {candidate: [] for candidate in candidates}
        for _ in range(blocks):
            time.sleep(SETTLE_S)
            floors.append(floor_usec(directory, rootfs))
            for candidate, run in candidates.items():
                time.sleep(SETTLE_S)
                for _ in range(RUNS_PER_BLOCK):
                    started = time.perf_counter()
                    run()
                    times[candidate].append((time.perf_counter() - started) * 1e6)
    medians = {candidate: statistics.median(values) for candidate, values in times.items()}
    return {"floor (start_floor.c, last row)": statistics.median(floors), **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = measure(options.blocks)
    if options.json:
        print(json.dumps(medians))
        return
    floor = next(iter(medians.values()))
    for name, value in medians.items():
        print(f"{name:34} {value / 1000:8.2f} ms {value / floor:7.2f} x floor")


if __name__ == "__main__":
    perform(main)
