"""How often a gate is red though nothing changed, and whether it is red when something did.

    sudo .venv/bin/python benchmarks/false_alarms.py [--pairs 50] [--trials 40] [--limit 5%] [--slower 2] [--out DIR]
    sudo .venv/bin/python benchmarks/false_alarms.py --runs FOLDER

Each pair is two runs of the same: real starts of /bin/true in a container of ours, one after the other, written as
run folders and read again, as `./invoke compare --gate` would. Then the second of each pair is compared again with its
times multiplied by ``--slower``: a gate that is never red would have no false alarms either. With ``--runs``,
the runs in a folder (of one scenario, in the order of their names) are taken two by two, and with ``--before 10`` each
is compared with the ten before it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, to_builtins
from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from runtime import container  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402
from testbed.host.facts import read_facts, read_source  # noqa: E402
from testbed.results import Metric, RunFolder, Trial  # noqa: E402
from testbed.runs.compare import Limits, compare_sides, parse_limits  # noqa: E402
from testbed.runs.sides import Measured, list_folders, measure  # noqa: E402
from testbed.runs.verdict import Result  # noqa: E402

PAUSE_S = 0.05  # between two starts, so that a run is not over within one mood of the host
JUDGED = "ready,first_process"


class Count(Struct, frozen=True):
    """How many gates said what, and the largest relative change of a judged figure."""

    gates: int
    regression: int
    cannot_tell: int
    ok: int
    largest: float


def start_once(spec: Spec, name: str, output: int) -> tuple[float, float]:
    """Start /bin/true; return the seconds until it was executed and until it was reaped."""
    began_ns = time.monotonic_ns()
    started = container.start(spec, name=name, stdout=output)
    executed_ns = time.monotonic_ns()
    status = started.wait()
    ended_ns = time.monotonic_ns()
    started.delete()
    if status != 0:
        raise WorkloadError(f"run /bin/true as a container: it ended with status {status}")
    return (executed_ns - began_ns) / 1e9, (ended_ns - began_ns) / 1e9


def make_run(folder: RunFolder, spec: Spec, name: str, output: int, trials: int) -> Measured:
    """Measure a run, and read it again from its folder."""
    for number in range(1, trials + 1):
        time.sleep(PAUSE_S)
        executed_s, ended_s = start_once(spec, name, output)
        metrics = (Metric("first_process", executed_s, "s"), Metric("ready", ended_s, "s"))
        folder.append(Trial(number, number, "container", "start", "ok", metrics=metrics))
    folder.finish("finished")
    return measure(folder.path)


def make_runs(count: int, trials: int, out: str) -> Iterator[Measured]:
    """Yield real runs of the same, one after the other."""
    name = f"benchmark-{os.getpid()}"
    manifest = {"scenario": "true", "settings": {}, "host": read_facts(), "source": read_source()}
    with ExitStack() as undo:
        undo.enter_context(lease(name))
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        layers = (str(make_rootfs(directory)),)
        spec = Spec(Process(args=("/bin/true",)), layers, "benchmark", Resources(64 << 20, 1.0, 64))
        output = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        undo.callback(os.close, output)

        def run(run_id: str) -> Measured:
            folder = RunFolder.create(Path(out) if out else directory / "runs", run_id, {"run": run_id, **manifest})
            return make_run(folder, spec, cgroup_name(name, "true"), output, trials)

        for number in range(count):
            yield run(f"r{number:04}")


def make_slower(measured: Measured, factor: float) -> Measured:
    """Return a run whose times are all multiplied."""
    figures = {
        figure: tuple(value * factor for value in values) if figure.direction.unit == "s" else values
        for figure, values in measured.figures.items()
    }
    return replace(measured, figures=figures)


Sides = tuple[Sequence[Measured], Sequence[Measured]]


def pair_up(runs: Sequence[Measured], before: int) -> list[Sides]:
    """Return the sides that are compared: runs two by two, or each with so many before it."""
    if before == 1:
        return [([one], [other]) for one, other in zip(runs[::2], runs[1::2], strict=False)]
    return [(runs[at - before : at], [runs[at]]) for at in range(before, len(runs))]


def count_gates(pairs: Sequence[Sides], limits: Limits) -> Count:
    """Gate every pair of sides."""
    results: Counter[Result] = Counter()
    changes = [0.0]
    for before, after in pairs:
        comparison = compare_sides(before, after, limits)
        results[comparison.result] += 1
        changes += [abs(row.change.value) for row in comparison.rows if row.judgement and row.change]
    return Count(len(pairs), results["regression"], results["cannot tell"], results["ok"], max(changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--limit", default="5%")
    parser.add_argument("--slower", type=float, default=2.0)
    parser.add_argument("--runs", default="", help="a folder of runs, instead of new ones")
    parser.add_argument("--before", type=int, default=1, help="runs on the baseline's side")
    parser.add_argument("--out", default="", help="where run folders are made, and stay")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.runs:
        limits = parse_limits(options.limit)
        runs = [measure(path) for path in list_folders(Path(options.runs))]
    else:
        limits = parse_limits(options.limit, JUDGED)
        runs = list(make_runs(2 * options.pairs, options.trials, options.out))
    pairs = pair_up(runs, options.before)
    slower = [(before, [make_slower(one, options.slower) for one in after]) for before, after in pairs]
    counts = {"A/A": count_gates(pairs, limits), f"times x {options.slower:g}": count_gates(slower, limits)}
    if options.json:
        print(json.dumps({name: to_builtins(count) for name, count in counts.items()}))
        return
    for name, count in counts.items():
        print(
            f"{name:12} {count.gates} gates: {count.regression} red, {count.cannot_tell} cannot tell, {count.ok} ok;"
            f" largest change {count.largest:.1%}"
        )


if __name__ == "__main__":
    perform(main)
