"""Start of /bin/true from a pool, beside a cold start of the same container and the floor of a cold start.

    sudo .venv/bin/python benchmarks/pooled_start.py [--blocks 5] [--json]

A pooled container has done all of its plan but the exec. Each block holds the floor's program (the last row of
reference/start_floor.c, from before the clone until the process has ended and its cgroup is removed), 50 cold starts
and 50 starts from a pool that was filled just before, in an order drawn for each block. Times are from the request
until the command has been executed, and until it has ended and is reaped; removing what is left comes after. What it
takes to fill the pool, and what waits in it, is given for each container.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import RUNS_PER_BLOCK, SETTLE_S, floor_usec, make_rootfs  # noqa: E402
from runtime import container  # noqa: E402
from runtime.container import Container  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402

FLOOR = "floor of a cold start, to its end"
COLD_EXECUTED, COLD_ENDED = "cold, command executed", "cold, command ended"
POOLED_EXECUTED, POOLED_ENDED = "pooled, command executed", "pooled, command ended"
FILL, MEMORY = "made beforehand", "memory while it waits (KiB)"


class Sides:
    """What is measured in microseconds, by side."""

    def __init__(self, rootfs: Path, lease_name: str) -> None:
        self.spec = Spec(Process(args=("/bin/true",)), (str(rootfs),), "benchmark", Resources(64 << 20, 1.0, 64))
        self.names = [cgroup_name(lease_name, f"true{number}") for number in range(RUNS_PER_BLOCK)]
        self.times: dict[str, list[float]] = {}

    def add(self, side: str, value: float) -> None:
        self.times.setdefault(side, []).append(value)

    def cold(self, output: int) -> None:
        for name in self.names:
            self._time(COLD_EXECUTED, COLD_ENDED, lambda: container.start(self.spec, name=name, stdout=output))  # noqa: B023

    def pooled(self, output: int) -> None:
        with ExitStack() as undo:
            pool = []
            for name in self.names:
                pool.append(container.pool(self.spec, name=name, stdout=output))
                undo.callback(pool[-1].delete)
            for waiting in pool:
                self.add(FILL, (waiting.pooled_ns - waiting.requested_ns) / 1e3)
                self.add(MEMORY, waiting.cgroup.memory_bytes() / 1024)
            for waiting in pool:
                self._time(POOLED_EXECUTED, POOLED_ENDED, waiting.start)

    def _time(self, executed: str, ended: str, start: Callable[[], Container]) -> None:
        began_ns = time.monotonic_ns()
        started = start()
        executed_ns = time.monotonic_ns()
        status = started.wait()
        ended_ns = time.monotonic_ns()
        started.delete()
        if status != 0:
            raise WorkloadError(f"run /bin/true as a container: it ended with status {status}")
        self.add(executed, (executed_ns - began_ns) / 1e3)
        self.add(ended, (ended_ns - began_ns) / 1e3)


def measure(blocks: int) -> dict[str, float]:
    """Medians in microseconds, the memory's in KiB, by what was measured, the floor first."""
    name = f"benchmark-{os.getpid()}"
    order = random.Random(1)
    with ExitStack() as undo:
        undo.enter_context(lease(name))
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        rootfs = make_rootfs(directory)
        sides = Sides(rootfs, name)
        output = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        undo.callback(os.close, output)
        measured: dict[str, Callable[[], None]] = {
            "floor": lambda: sides.add(FLOOR, floor_usec(directory, rootfs)),
            "cold": lambda: sides.cold(output),
            "pooled": lambda: sides.pooled(output),
        }
        for _ in range(blocks):
            for side in order.sample(list(measured), len(measured)):
                time.sleep(SETTLE_S)
                measured[side]()
    shown = (FLOOR, COLD_EXECUTED, COLD_ENDED, POOLED_EXECUTED, POOLED_ENDED, FILL, MEMORY)
    return {side: statistics.median(sides.times[side]) for side in shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = measure(options.blocks)
    if options.json:
        print(json.dumps(medians))
        return
    memory = medians.pop(MEMORY)
    for name, value in medians.items():
        print(f"{name:34} {value / 1000:8.3f} ms {value / medians[FLOOR]:7.2f} x floor")
    print(f"{MEMORY:34} {memory:8.0f}")


if __name__ == "__main__":
    perform(main)
