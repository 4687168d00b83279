"""How many copies of clickme fit in 8 GiB, and how start time grows with the number that runs already.

    sudo .venv/bin/python benchmarks/vm_density.py [--kinds container,vm] [--copies 6] [--json]

Copies are started one after the other, each once the one before is ready, and none is stopped. For each number the
time to the first right answer is taken, and memory by the testbed's three rulers: of the first copy, and what each
further one adds. Containers and guests that fit in 8 GiB are extrapolated from these, and said to be: the copies that
have run are far fewer. LightVM (Manco et al., SOSP 2017) starts its guests in the same time however many run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import linear_regression

from msgspec import Struct, to_builtins

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.applications import prepared  # noqa: E402
from benchmarks.command import perform  # noqa: E402
from testbed.copies import COLUMNS, copy_memory  # noqa: E402
from testbed.measures.application import Application  # noqa: E402
from testbed.measures.context import RunContext  # noqa: E402
from testbed.sample import read_host, read_usage  # noqa: E402

HOLD_BYTES = 8 << 30
SETTLE_S = 2.0
_MIB = 1 << 20


class Step(Struct, frozen=True):
    """What was seen with so many copies running, the newest of which took ``ready_s`` to be ready."""

    applications: int
    ready_s: float
    cgroup_bytes: int
    pss_bytes: int
    available_bytes: int


def ramp(context: RunContext, kind: str, copies: int) -> list[Step]:
    """Start so many copies, one after the other."""
    time.sleep(SETTLE_S)
    steps = [Step(0, 0.0, 0, 0, read_host().available_bytes)]
    with ExitStack() as undo:
        running = []
        for number in range(copies):
            one = undo.enter_context(Application(context, context.platforms[kind], number, f"{kind}-{number}"))
            for instance in one.instances:
                context.platforms[kind].reclaim(instance)
            running.append(one)
            ready_s = (one.timeline.ready_ns - one.timeline.requested_ns) / 1e9
            time.sleep(SETTLE_S)
            found = [read_usage(cgroup) for each in running for cgroup in each.cgroups().values()]
            steps.append(
                Step(
                    number + 1,
                    ready_s,
                    sum(one.cgroup_bytes for one in found),
                    sum(one.pss_bytes for one in found),
                    read_host().available_bytes,
                )
            )
            print(f"  {kind}: copy {number + 1} ready after {ready_s:.3f} s", file=sys.stderr)
    return steps


def print_ramp(label: str, steps: Sequence[Step]) -> None:
    """Memory of a copy, how many fit, and the growth of the start."""
    print(f"\n{label}, {steps[-1].applications} copies")
    columns = {name: [float(getattr(step, name)) for step in steps] for name in Step.__struct_fields__}
    for ruler in COLUMNS:
        memory = copy_memory([columns], ruler)
        if memory is None or memory.further is None or not memory.further.value:
            continue
        first, each = memory.first.value, memory.further
        span = f" ({each.low / _MIB:.1f} to {each.high / _MIB:.1f})" if each.low is not None and each.high else ""
        fits = 1 + int((HOLD_BYTES - first) / each.value)
        print(f"  {ruler:16} first {first / _MIB:8.1f} MiB, each further {each.value / _MIB:8.1f}{span:24}", end="")
        print(f" extrapolated: {fits} in 8 GiB")
    counts, times = columns["applications"][1:], columns["ready_s"][1:]
    line = linear_regression(counts, times).slope if len(times) > 1 else 0.0
    grows = f", {line * 1e3:+.1f} ms for each that runs already" if len(times) > 1 else ""
    print(f"  ready    {times[0]:.3f} s with none running, {times[-1]:.3f} s with {len(times) - 1}{grows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="container,vm")
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    with prepared(kinds, ROOT / "scenarios") as context:
        labels = {kind: context.platforms[kind].label for kind in kinds}
        found = {kind: ramp(context, kind, options.copies) for kind in kinds}
    if options.json:
        print(json.dumps({labels[kind]: [to_builtins(step) for step in steps] for kind, steps in found.items()}))
        return
    for kind, steps in found.items():
        print_ramp(labels[kind], steps)


if __name__ == "__main__":
    perform(main)
