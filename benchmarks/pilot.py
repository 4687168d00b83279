"""Where to repeat on this host: a small pilot of nested repetitions, and what follows from how they vary and what they
cost (T. Kalibera and R. Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013).

    sudo .venv/bin/python benchmarks/pilot.py [--scenario clickme] [--platform container] [--builds 2] [--runs 2]
                                              [--instances 3] [--quick] [--json]

The levels are build (the images, from the package archive on, in a store of their own), run (a process of the bench
with a lab of its own, which is what a boot is to a virtual machine's host), instance (a start) and request (once
latency is steady). Values are logarithms, so that a component's root is a relative deviation. Two or three repetitions
of a level say little about it: take the constants as the order of magnitude that they are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct, to_builtins

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.errors import UsageError, WorkloadError  # noqa: E402
from testbed.analysis import read_run  # noqa: E402
from testbed.repetitions import (  # noqa: E402
    FEWEST_REQUESTS,
    INSTANCE,
    REQUEST,
    Repetitions,
    cost_of_instance,
    cost_of_request,
    list_starts,
    read_steady_logs,
    summarise,
)
from testbed.results import RunFolder  # noqa: E402
from testbed.run_folders import find_newest  # noqa: E402
from testbed.statistics import MOST, LevelCost, find_components  # noqa: E402

BUILD, RUN = "build", "run"
FEWEST = 2
# What a bench says when it has to wait (testbed.host.turn).
_WAITING = "waiting for the end of the run"


class Measured(Struct, frozen=True):
    """A run of the pilot: logarithms of the latencies of each instance's requests and of the times to ready, what an
    instance and a request cost, and the seconds that the whole run took."""

    requests: list[list[float]]
    ready: list[float]
    instance_s: float
    request_s: float
    took_s: float


def run_bench(options: argparse.Namespace, store: Path, out: Path, seed: int) -> Measured:
    """Run the bench once. Raises WorkloadError when it fails, or when no instance of it became steady."""
    command = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "bench", "--measures", "start", "--wait"]
    command += ["--scenario", options.scenario, "--platforms", options.platform, "--seed", str(seed)]
    command += ["--trials", str(options.instances), "--out", str(out), *(["--quick"] if options.quick else [])]
    environment = {**os.environ, "TESTBED_HOME": str(store), "PYTHONPATH": str(ROOT)}
    took_s, said, status = follow(command, environment)
    if status:
        raise WorkloadError(f"the pilot's bench exited with {status}: {said or 'it said nothing'}")
    run = read_run(RunFolder.open(find_newest(out)))
    starts = list_starts(run, options.platform)
    requests = [logs for trial in starts if len(logs := read_steady_logs(run, trial)) >= FEWEST_REQUESTS]
    if len(requests) < FEWEST:
        raise WorkloadError(
            f"of {len(starts)} instances of the pilot only {len(requests)} were asked often enough once steady",
            "ask for more --instances, or leave --quick out",
        )
    ready = [math.log(value) for trial in starts if (value := trial.value("ready"))]
    return Measured(requests, ready, cost_of_instance(starts), cost_of_request(run, starts[0]), took_s)


def follow(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, str, int]:
    """Run a bench; return the seconds that it took without those in which it waited for another run's end, the last
    line that it said, and its exit status."""
    begun, waiting, said = time.monotonic(), False, ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as bench:
        try:
            assert bench.stderr is not None
            for line in bench.stderr:
                begun = time.monotonic() if waiting else begun
                waiting = line.startswith(_WAITING)
                said = line.strip() or said
        except SystemExit:
            bench.terminate()  # it takes down what it has started, which a kill would leave
            raise
    return time.monotonic() - begun, said, bench.returncode


def measure(options: argparse.Namespace) -> tuple[list[list[Measured]], float]:
    """Return the runs of each build, and the seconds that a build takes: how much longer a first run takes than the
    others, in the middle."""
    builds, longer = [], []
    for build in range(options.builds):
        with tempfile.TemporaryDirectory(prefix="testbed-pilot-") as directory:
            Path(directory).chmod(0o755)  # what runs in an instance reads the layers as a user without rights
            store = Path(directory) / "store"
            first, *others = (
                run_bench(options, store, Path(directory) / f"results-{number}", 1 + number)
                for number in range(options.runs + 1)
            )
        builds.append(others)
        longer.append(first.took_s - min(one.took_s for one in others))
        print(f"build {build + 1} of {options.builds}: {first.took_s:.0f} s with its first run", file=sys.stderr)
    return builds, max(0.0, median(longer))


def decide(builds: Sequence[Sequence[Measured]], build_s: float) -> Mapping[str, Repetitions]:
    """Return where to repeat, for latency and for the time to ready."""
    runs = [run for of in builds for run in of]
    instance_s, request_s = (median(getattr(run, name) for run in runs) for name in ("instance_s", "request_s"))
    within = [run.instance_s * len(run.ready) + run.request_s * sum(map(len, run.requests)) for run in runs]
    run_s = max(0.0, median(run.took_s - spent for run, spent in zip(runs, within, strict=True)))
    costs = (
        LevelCost(BUILD, build_s), LevelCost(RUN, run_s), LevelCost(INSTANCE, instance_s), LevelCost(REQUEST, request_s)
    )  # fmt: skip
    instances = min(len(run.requests) for run in runs)
    least = min(len(logs) for run in runs for logs in run.requests)
    requests = [[[logs[-least:] for logs in run.requests[:instances]] for run in of] for of in builds]
    starts = min(len(run.ready) for run in runs)
    ready = [[run.ready[:starts] for run in of] for of in builds]
    return {
        "latency": summarise(find_components(requests), costs),
        "ready": summarise(find_components(ready), costs[:-1]),
    }


def _print(found: Mapping[str, Repetitions]) -> None:
    for figure, of in found.items():
        total = sum(max(0.0, component) for component in of.components) or 1.0
        print(f"\n{figure:14}{'measured':>9}{'deviates by':>13}{'of variance':>13}{'costs':>11}{'repeat':>12}")
        for level, count in zip(of.levels, of.counts, strict=True):
            component = max(0.0, level.component)
            wanted = "as needed" if level.count is None else "all time" if level.count >= MOST else str(level.count)
            print(
                f"{level.level:14}{count:9}{math.sqrt(component):12.1%} {component / total:12.0%} "
                f"{level.cost_s:8.2f} s {wanted:>12}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="clickme")
    parser.add_argument("--platform", default="container")
    for name, number in (("builds", 2), ("runs", 2), ("instances", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.builds, options.runs, options.instances) < FEWEST:
        raise UsageError(f"every level needs at least {FEWEST} repetitions: one by itself shows no variation")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    found = decide(*measure(options))
    if options.json:
        print(json.dumps(to_builtins(found)))
    else:
        _print(found)


if __name__ == "__main__":
    perform(main)
