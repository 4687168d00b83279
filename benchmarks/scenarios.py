"""Builds every scenario and measures it with its quick settings: that it works, what it says, and how long it takes.

    .venv/bin/python benchmarks/scenarios.py [--platforms container,vm] [--scenarios hpc,kv] [--out DIR] [--json]

It is what tests leave out, for the images of some are large. A scenario whose run fails, or lacks a figure on a
platform, ends it with 1, once the others have run. Prints for each scenario the seconds in all, and by platform the
figures of its work, and the seconds until it was ready.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.command import perform  # noqa: E402
from testbed.analysis import estimate_start_phases, estimate_work, read_run  # noqa: E402
from testbed.results import RunFolder  # noqa: E402
from testbed.scenario.model import list_scenarios, load  # noqa: E402

SCENARIOS = ROOT / "scenarios"
# A first run builds images, and an emulated guest works for minutes.
TIMEOUT_S = 1800


class Measured(Struct, frozen=True):
    """One scenario's run: seconds in all, building included, and figures by platform, in base units. ``problem`` is
    what is wrong, if something is."""

    scenario: str
    seconds: float
    folder: str = ""
    figures: Mapping[str, Mapping[str, float]] = {}
    problem: str = ""


def measure(scenario: str, platforms: str, out: Path) -> Measured:
    """Measure a scenario in a process of its own and return what came of it."""
    options = ("--scenario", scenario, "--platforms", platforms, "--out", str(out), "--quick", "--wait", "--json")
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "bench", *options],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
    )
    took_s = time.monotonic() - began_s
    if done.returncode:
        return Measured(scenario, took_s, problem=f"bench ended with {done.returncode}")
    return read(scenario, took_s, json.loads(done.stdout))


def read(scenario: str, took_s: float, answer: Mapping[str, Any]) -> Measured:
    """Return the figures of a finished run, whose answer is given; its problem is the figures that it lacks."""
    run = read_run(RunFolder.open(Path(answer["folder"])))
    work = load(scenario, SCENARIOS).quick.work
    figures: dict[str, dict[str, float]] = {}
    missing = []
    for platform in run.platforms:
        worked = {name: one.estimate.value for name, one in estimate_work(run, platform.name).items()}
        ready = estimate_start_phases(run, platform.name).get("ready")
        expected = [name for name, _ in work.figures] if work else []
        figures[platform.name] = {name: worked[name] for name in expected if name in worked}
        if ready is not None:
            figures[platform.name]["ready"] = ready.value
        missing += [
            f"{platform.name} has no {name}" for name in (*expected, "ready") if name not in figures[platform.name]
        ]
    return Measured(scenario, took_s, answer["folder"], figures, "; ".join(missing))


def show(one: Measured) -> None:
    """Print what came of a scenario, as soon as it is known: the next one may take minutes."""
    print(f"{one.scenario}: {one.seconds:.0f} s{f'; {one.problem}' if one.problem else ''}", flush=True)
    for platform, figures in one.figures.items():
        print(f"  {platform}: {', '.join(f'{name} {value:.4g}' for name, value in figures.items())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(list_scenarios(SCENARIOS)))
    parser.add_argument("--platforms", default="container")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = []
    for name in options.scenarios.split(","):
        measured.append(measure(name, options.platforms, options.out))
        if not options.json:
            show(measured[-1])
    if options.json:
        print(json.dumps(to_builtins(measured), indent=2))
    if any(one.problem for one in measured):
        sys.exit(1)


if __name__ == "__main__":
    perform(main)
