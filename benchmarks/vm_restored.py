"""clickme ready as virtual machines that boot, beside copies of saved ones, phase by phase.

    sudo .venv/bin/python benchmarks/vm_restored.py [--rounds 5] [--json]

Both run the same services on the same machine with the same kernel and disks. The saved guests are made before the
clock starts, as disks and kernels are; how long that takes and what they occupy is printed. The sides alternate, in
an order drawn for each round. Times are seconds since the request of the application, or of the service, by the
host's clock: median and range over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, field

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.lease import lease  # noqa: E402
from testbed.images import build_images  # noqa: E402
from testbed.lab import Lab  # noqa: E402
from testbed.measures.application import Application  # noqa: E402
from testbed.measures.context import RunContext  # noqa: E402
from testbed.measures.timeline import Timeline  # noqa: E402
from testbed.platforms import registry  # noqa: E402
from testbed.platforms.protocol import Platform  # noqa: E402
from testbed.progress import print_progress  # noqa: E402
from testbed.results import RunFolder  # noqa: E402
from testbed.scenario.model import load  # noqa: E402

COLD, RESTORED = "vm", "vm-restored"


class Measured(Struct):
    """``times`` in seconds by platform and phase, one a round; ``labels`` and seconds of preparation by platform."""

    labels: dict[str, str] = field(default_factory=dict)
    prepared_s: dict[str, float] = field(default_factory=dict)
    saved_bytes: int = 0
    times: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, name: str, timeline: Timeline) -> None:
        found = self.times.setdefault(name, {})
        for service, phases in timeline.services.items():
            for phase, at_ns in phases.items():
                found.setdefault(f"{service}.{phase}", []).append((at_ns - phases["request"]) / 1e9)
        found.setdefault("ready", []).append((timeline.ready_ns - timeline.requested_ns) / 1e9)

    def median(self, name: str, phase: str = "ready") -> float:
        return statistics.median(self.times[name][phase])


def measure(rounds: int) -> Measured:
    """Start and stop the application ``rounds`` times on each side."""
    scenario = load("clickme", ROOT / "scenarios")
    name = f"benchmark-{os.getpid()}"
    measured, order = Measured(), random.Random(1)
    with lease(name) as scratch, ExitStack() as undo:
        images = build_images(scenario, print_progress)
        lab = Lab()
        chosen: dict[str, Platform] = {}
        for side in (COLD, RESTORED):
            chosen[side] = registry.create(side, name, scratch, lab)
            undo.callback(chosen[side].close)
            began_s = time.monotonic()
            chosen[side].prepare(scenario, images)
            measured.prepared_s[side] = time.monotonic() - began_s
            measured.labels[side] = chosen[side].label
        measured.saved_bytes = int(str(chosen[RESTORED].facts()["saved_bytes"]))
        folder = RunFolder.create(scratch, "run", {"run": "run", "scenario": scenario.name})
        undo.enter_context(lab)
        context = RunContext(scenario, scenario.settings, images, chosen, lab, folder, 0, lambda line: None)
        for number in range(rounds):
            for side in order.sample(list(chosen), len(chosen)):
                with Application(context, chosen[side], 0, f"{side}-{number}") as application:
                    measured.add(side, application.timeline)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure(options.rounds)
    ratio = measured.median(RESTORED) / measured.median(COLD)
    if options.json:
        sides = {
            side: {phase: measured.median(side, phase) for phase in measured.times[side]} for side in measured.times
        }
        print(json.dumps({"labels": measured.labels, "median_s": sides, "ratio": ratio}))
        return
    print(f"clickme, {options.rounds} rounds; seconds since the request: median (min to max)")
    for side, phases in measured.times.items():
        print(f"{measured.labels[side]}, prepared in {measured.prepared_s[side]:.1f} s")
        for phase, values in phases.items():
            print(f"  {phase:24} {statistics.median(values):7.3f} ({min(values):.3f} to {max(values):.3f})")
    print(f"the saved guests occupy {measured.saved_bytes >> 20} MiB")
    print(f"restored is ready in {ratio:.3f} of the time of a cold start (asked for: at most 0.200)")


if __name__ == "__main__":
    perform(main)
