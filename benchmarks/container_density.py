"""Idle containers: memory of each and the growth of start time with their number, beside the floor, in one run.

    sudo .venv/bin/python benchmarks/container_density.py [--containers 1000] [--json]

The floor is reference/density_floor.c: sleeping processes with namespaces, an overlay root and a memory cgroup, all
from one C program. Ours are the API's default containers. Both have a network namespace of their own. Memory is what
MemAvailable lost for each; growth is the median start of the last 100 divided by that of the first 100. After that
come 100 starts at once, and the launcher's largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from runtime import container  # noqa: E402
from runtime.kernel_files import available_bytes  # noqa: E402
from runtime.launcher import Launch  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.plan import steps  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402

WINDOW = 100
SETTLE_S = 2.0


def available_kib() -> int:
    """MemAvailable of the host."""
    return available_bytes(Path("/proc/meminfo").read_text()) // 1024


def floor(directory: Path, rootfs: Path, count: int) -> dict[str, float]:
    """What density_floor.c prints: KiB for each, medians in microseconds of the first and the last hundred."""
    binary = directory / "density_floor"
    source = ROOT / "benchmarks" / "reference" / "density_floor.c"
    subprocess.run(["gcc", "-O2", "-w", "-o", str(binary), str(source)], check=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        command = [str(binary), str(rootfs), work, str(count), "1"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    memory, first, last = (float(number) for number in re.findall(r"=(-?\d+) KiB.*?(\d+) us.*?(\d+) us", text)[0])
    return {"memory_kib": memory, "first_usec": first, "last_usec": last}


def ours(rootfs: Path, name: str, count: int) -> dict[str, float]:
    """The same of our containers, and of 100 concurrent starts (the whole, in microseconds)."""
    spec = Spec(Process(args=("/bin/sleep", "1000")), (str(rootfs),), "benchmark", Resources(64 << 20, 1.0, 64))
    null = os.open("/dev/null", os.O_RDWR)

    def start(undo: ExitStack, number: int) -> float:
        began = time.perf_counter()
        started = container.start(spec, name=cgroup_name(name, f"c{number}"), stdout=null, stdin=null)
        took_usec = (time.perf_counter() - began) * 1e6
        undo.callback(started.delete)
        return took_usec

    with ExitStack() as undo:
        start(undo, count)  # what is made once is not charged to the first
    time.sleep(SETTLE_S)
    before = available_kib()
    with ExitStack() as undo:
        times = [start(undo, number) for number in range(count)]
        time.sleep(1)
        memory = (before - available_kib()) / count
    time.sleep(SETTLE_S)
    with ExitStack() as undo, ThreadPoolExecutor(100) as pool:
        began = time.perf_counter()
        list(pool.map(partial(start, undo), range(100)))
        concurrent = (time.perf_counter() - began) * 1e6
    peak_kib = launcher_peak_kib(null)
    os.close(null)
    return {
        "memory_kib": memory,
        "first_usec": statistics.median(times[:WINDOW]),
        "last_usec": statistics.median(times[-WINDOW:]),
        "concurrent_100_usec": concurrent,
        "launcher_peak_kib": peak_kib,
    }


def launcher_peak_kib(null: int) -> float:
    """The largest resident set (VmHWM) of a launcher that has done all but to execute the workload."""
    plan = steps.Plan((steps.Sync(1), steps.Exec(("/bin/true",))))
    with Launch(plan, dict.fromkeys(range(3), null)) as launch:
        launch.next()
        pid = launch.known_pid()
        peak = float(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
        launch.go()
        launch.next()
        os.waitpid(pid, 0)
    return peak


def measure(count: int) -> dict[str, dict[str, float]]:
    """Floor and ours, by name."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    name = f"density-{os.getpid()}"
    with lease(name), tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        directory.chmod(0o755)
        rootfs = make_rootfs(directory)
        (rootfs / "bin" / "sleep").symlink_to("true")
        found = {"floor (density_floor.c)": floor(directory, rootfs, count)}
        time.sleep(SETTLE_S)
        found["testbed API"] = ours(rootfs, name, count)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.containers)
    if options.json:
        print(json.dumps(found))
        return
    base = found["floor (density_floor.c)"]
    for name, row in found.items():
        growth = row["last_usec"] / row["first_usec"]
        ratio = row["memory_kib"] / base["memory_kib"]
        print(f"{name:24} {row['memory_kib']:6.0f} KiB each {ratio:5.2f} x floor", end="")
        print(f"   first 100 {row['first_usec'] / 1000:5.2f} ms, last 100 {row['last_usec'] / 1000:5.2f} ms", end="")
        print(f"   growth {growth:5.2f}")
    row = found["testbed API"]
    print(
        f"100 starts at once: {row['concurrent_100_usec'] / 1000:.0f} ms; launcher {row['launcher_peak_kib']:.0f} KiB"
    )


if __name__ == "__main__":
    perform(main)
