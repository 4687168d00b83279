"""Container start of /bin/true to its end through the Python API, beside the floor, in one run.

    sudo .venv/bin/python benchmarks/container_start.py [--blocks 5] [--json]

The floor is the last row of reference/start_floor.c: the fewest system calls for a process with namespaces, an
overlay root and a pids cgroup, 200 times in a row. Our runtime starts a container with all namespaces, overlay, cgroup
limits, seccomp, /dev and masked paths. As the floor is taken in a row, so is this: each block holds the floor's program
and 50 runs one after another, and the median is taken over all blocks. Command lines, ours and others, are compared by
commands.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime import container  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402

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
        run = ours(rootfs, name)
        floors: list[float] = []
        times: list[float] = []
        for _ in range(blocks):
            time.sleep(SETTLE_S)
            floors.append(floor_usec(directory, rootfs))
            time.sleep(SETTLE_S)
            for _ in range(RUNS_PER_BLOCK):
                started = time.perf_counter()
                run()
                times.append((time.perf_counter() - started) * 1e6)
    return {"floor (start_floor.c, last row)": statistics.median(floors), "testbed API": statistics.median(times)}


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
