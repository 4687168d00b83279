"""The fleet at 10, 1,000 and 100,000 servers: time, memory, and how far each heuristic is from the lower bound; and
what the simulation says of consolidations that were published.

    .venv/bin/python benchmarks/fleet.py [--counts 10,1000,100000] [--run RUN] [--json]

Without a run its footprints are stated ones, of a container of 44 MiB and 1 ms a request and of a machine of 290 MiB
and 1.3 ms, each known to 10 %: figures of the simulation's cost do not depend on them. Each fleet is simulated in a
process of its own, whose peak of memory counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from testbed.analysis import read_run  # noqa: E402
from testbed.fleet.bounds import find_bound  # noqa: E402
from testbed.fleet.demands import Fit, Host, Hosting, Room, list_demands, make_room  # noqa: E402
from testbed.fleet.distributions import GIB, TALK, Mix, Size, azure_mix, draw_servers, talk_mix  # noqa: E402
from testbed.fleet.packing import pack  # noqa: E402
from testbed.fleet.simulate import Question, simulate  # noqa: E402
from testbed.footprints import Footprint, read_footprints  # noqa: E402
from testbed.results import RunFolder  # noqa: E402
from testbed.statistics import Estimate  # noqa: E402

HOST = Host(64, 512 * GIB)
# What must hold for the largest fleet (issue: under 10 s and 2 GB).
MOST_S, MOST_BYTES = 10.0, 2e9


class Row(Struct, frozen=True):
    """A fleet's cost: seconds by the clock and of CPU, peak bytes of its process, and hosts by platform and
    heuristic."""

    fleet: str
    servers: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    hosts: dict[str, int]
    bounds: dict[str, int]
    distances: dict[str, float]
    ratio: tuple[float, float | None, float | None] | None


class Validation(Struct, frozen=True):
    """What was published, and what the simulation says of the same."""

    what: str
    published: str
    simulated: str


def state_footprints() -> tuple[Footprint, ...]:
    """Return the footprints that stand in for a run's."""

    def estimate(value: float) -> Estimate:
        return Estimate(value, value * 0.9, value * 1.1, 6, 0.97)

    def footprint(name: str, memory_mib: float, cpu_s: float, idle: float) -> Footprint:
        memory = memory_mib * 2**20
        figures = estimate(2 * memory), estimate(memory), estimate(cpu_s), estimate(idle), None
        return Footprint(name, f"{name} (stated)", False, *figures)

    return footprint("container", 44, 0.001, 0.001), footprint("vm", 290, 0.0013, 0.01)


def measure(name: str, count: int, footprints: tuple[Footprint, ...], pipe: Any) -> None:
    """Simulate one fleet and send its row."""
    mix = azure_mix() if name == "azure" else talk_mix(float(name) / 100)
    began, cpu = time.perf_counter(), time.process_time()
    outcome = simulate(Question(draw_servers(mix, count, 1), footprints, HOST))
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    base = next(one for one in outcome.hosted if one.platform == outcome.base)
    pair = outcome.pairs[0].ratio if outcome.pairs else None
    pipe.send(
        Row(
            name, count, seconds, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            {one.platform: int(one.hosts.value) for one in outcome.hosted},
            {one.platform: one.bound.hosts for one in outcome.hosted},
            {one.heuristic: one.distance for one in base.packed},
            (pair.value, pair.low, pair.high) if pair else None,
        )
    )  # fmt: skip


def measure_apart(name: str, count: int, footprints: tuple[Footprint, ...]) -> Row:
    """Simulate one fleet in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, count, footprints, theirs))
    process.start()
    theirs.close()
    try:
        row: Row = ours.recv()
    finally:
        process.join()
    return row


def validate() -> list[Validation]:
    """Return what was published beside what the simulation says."""
    declared = Mix("vkernel", (Size(1.0, 1 / 0.9 / 2.2, 2.25 * GIB),), 0.999, concentration=0, memory_cv=0.3)
    demand = list_demands(draw_servers(declared, 20_000, 1))
    room = Room(2.4 * 3.6, 50 * GIB * 0.7, 0.0, 0.0)
    bound, packed = find_bound(demand, room), pack(demand, room, "as they come").count
    rows = [
        Validation(
            "VKernel 2010: machines on a host, and what limits them", "15.6, memory",
            f"{20_000 / packed:.1f} packed, {20_000 / bound.hosts:.1f} by the bound, {bound.binds}",
        )
    ]  # fmt: skip
    whole = make_room(Host(4, 1024 * GIB), Fit(headroom=0), Hosting())
    ratios: dict[int, list[float]] = {}
    for permille in range(30, 260, 5):
        mix = Mix("alike", (Size(1.0, 4, 0.01 * GIB),), permille / 1000, concentration=0)
        count = pack(list_demands(draw_servers(mix, 840, 2)), whole, "as they come").count
        ratios.setdefault(round(840 / count), []).append(permille / 10)
    for servers, published in ((15, "5 to 8 % for 15 to 20"), (8, "after one year"), (3, "after three years")):
        of = ratios[servers]
        rows.append(
            Validation(f"Network World 2006: {servers}:1", published, f"a mean CPU use of {of[0]:g} to {of[-1]:g} %")
        )
    return rows


def show(rows: list[Row], validations: list[Validation]) -> None:
    """Print all rows as tables."""
    for row in rows:
        took = f"{row.seconds:.2f} s ({row.cpu_s:.2f} s CPU), {row.peak_bytes / 1e6:.0f} MB"
        print(f"{row.fleet}, {row.servers} servers: {took}")
        hosts = ", ".join(f"{name} {count} (bound {row.bounds[name]})" for name, count in row.hosts.items())
        ratio = ""
        if row.ratio and row.ratio[1] is not None:
            ratio = f"; vm / container {row.ratio[0]:.3f} ({row.ratio[1]:.3f} to {row.ratio[2]:.3f})"
        print(f"    hosts: {hosts}{ratio}")
        print("    above the bound: " + ", ".join(f"{name} {value:.1%}" for name, value in row.distances.items()))
    for one in validations:
        print(f"{one.what}: published {one.published}; simulated {one.simulated}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,1000,100000", help="servers of a fleet, with commas")
    parser.add_argument("--run", type=Path, help="take the footprints of this run")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    given = parser.parse_args()
    footprints = read_footprints(read_run(RunFolder.open(given.run))) if given.run else state_footprints()
    names = [*(f"{100 * one:g}" for one in TALK), "azure"]
    rows = [measure_apart(name, int(count), footprints) for count in given.counts.split(",") for name in names]
    validations = validate()
    if given.json:
        print(json.dumps({"fleets": to_builtins(rows), "validation": to_builtins(validations)}, indent=2))
    else:
        show(rows, validations)
    slow = [row for row in rows if row.cpu_s > MOST_S or row.peak_bytes > MOST_BYTES]
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    perform(main)
