"""How long a report of a very large run takes, how much memory, and how large it is.

    .venv/bin/python benchmarks/report.py [--trials 10000] [--samples 10000000] [--platforms 4]

The run is made up (what is measured is the rendering, not a platform): starts, loads and density ramps in random order,
each with a time series of as many rows as make the number of samples. Its files are rendered by a process of their own,
whose time from its start to its end counts, with all imports, and whose greatest resident memory the kernel tells.
Series of a kind are links to one file: they are as many to read, and take no room.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from msgspec import to_builtins  # noqa: E402
from msgspec.structs import astuple  # noqa: E402

from testbed.measures.steps import Point  # noqa: E402
from testbed.results import PARTS_OF_STEPS, Metric, RunFolder, Trial  # noqa: E402
from testbed.sampler.plan import HOST  # noqa: E402
from testbed.sampler.records import COLUMNS  # noqa: E402

LIMIT_S, LIMIT_MB, LIMIT_PAGE_MB = 5.0, 500, 1.5
RATES = (10.0, 50.0, 100.0, 200.0)
PHASES = {"created": 0.02, "first_process": 0.3, "port_open": 0.93, "ready": 1.0}
MIB = 2**20


def make_trial(number: int, platform: int, chance: random.Random) -> Trial:
    """Return a trial that ended well: six in ten are starts, one in twenty a ramp, the others loads."""
    name, slow = f"platform-{platform}", 1 + platform / 2
    kind = chance.random()
    window = {"steal": abs(chance.gauss(0, 0.002)), "foreign_cpu": abs(chance.gauss(0, 0.01))}
    window |= {"began_s": number * 3.0, "took_s": 2.5}
    if kind < 0.6:
        ready = 0.6 * slow * chance.lognormvariate(0, 0.1)
        figures = {name: part * ready for name, part in PHASES.items()}
        figures |= {f"{service}.{phase}": figures[phase] * 0.9 for service in ("redis", "web") for phase in PHASES}
        metrics = tuple(Metric(metric, value, "s") for metric, value in figures.items())
        return Trial(number, number, name, "start", "ok", "", {}, metrics, "start.csv", window=window)
    if kind < 0.65:
        metrics = (Metric("applications", 900, "1"),)
        return Trial(number, number, name, "density", "ok", "cap: 900", {}, metrics, "density.csv", window=window)
    rate = chance.choice(RATES)
    cost = 0.0004 * slow * chance.lognormvariate(0, 0.1)
    values = {"achieved_rate": rate, "cpu_per_request": cost, "latency_p50": 3 * cost, "latency_p99": 12 * cost}
    values |= {"memory_cgroup": 40e6 * slow, "host_utilisation": 0.2, "requests_ok": rate * 20, "saturated": 0.0}
    metrics = tuple(Metric(metric, value, "s") for metric, value in values.items())
    parameters = {"rate_per_s": rate}
    return Trial(number, number, name, "utilisation", "ok", "", parameters, metrics, "load.csv", window=window)


def write_series(folder: RunFolder, rows: int, chance: random.Random) -> None:
    """Write one time series of each kind."""
    folder.write_samples("start", ("due_s", "latency_s"), [(0.01 * at, chance.random() / 100) for at in range(rows)])
    row: list[float | str] = [250_000, 40 * MIB, 36 * MIB, "", "", 10, 0, 0]
    row += [""] * (len(COLUMNS) - 2 - len(row))
    host: list[float | str] = ["", "", "", 0.5, 20e9, "", "", "", 0.0, "", "", "", ""]
    load: list[Sequence[float | str]] = []
    for at in range(rows // 2):
        t_s = round(0.1 * at, 4)
        row[:2] = [25_000_000 * at, (40 + at % 7) * MIB]
        load += [(t_s, "web", *row), (t_s, HOST, *host, *[1000 * at] * (len(COLUMNS) - 2 - len(host)))]
    folder.write_samples("load", COLUMNS, load)
    steps = [
        Point(at, 40 * MIB * at, 36 * MIB * at, int(64e9) - 44 * MIB * at, 2 + at / 20, 0.0, 0.5, 0.1, 0.0, 1 + at / 40,
              0.4 + at / 900, 800, 1, 0.0001, 0.008, 2, "held")
        for at in range(rows)
    ]  # fmt: skip
    folder.write_samples("density", Point.__struct_fields__, [astuple(step) for step in steps])
    parts = [(2**at, name, 2**at * 10 * MIB) for at in range(10) for name in ("application", "files", "host_kernel")]
    folder.write_samples(f"density{PARTS_OF_STEPS}", ("applications", "part", "bytes"), parts)


def write_run(base: Path, trials: int, samples: int, platforms: int) -> Path:
    """Write the whole run and return its folder."""
    chance = random.Random(17)
    names = [f"platform-{number}" for number in range(platforms)]
    manifest = {
        "run": "large", "scenario": "large", "seed": 17, "started": "2026-01-01T00:00:00+00:00",
        "settings": {"slo": {"p99_ms": 250.0}},
        "platforms": {name: {"label": name, "emulated": False} for name in names},
    }  # fmt: skip
    folder = RunFolder.create(base, "large", manifest)
    write_series(folder, max(1, samples // trials), chance)
    lines = []
    for number in range(1, trials + 1):
        trial = make_trial(number, chance.randrange(platforms), chance)
        record = to_builtins(trial)
        record["samples"] = f"t{number:05}.csv"
        os.link(folder.path / "samples" / str(trial.samples), folder.path / "samples" / record["samples"])
        if trial.measure == "density":
            name = f"t{number:05}{PARTS_OF_STEPS}.csv"
            os.link(folder.path / "samples" / f"density{PARTS_OF_STEPS}.csv", folder.path / "samples" / name)
        lines.append(json.dumps(record))
    (folder.path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    folder.finish("finished")
    return folder.path


def render(folder: Path) -> tuple[float, float, float]:
    """Render in a new process; return its seconds, those of processors, and its greatest resident memory in MB."""
    program = f"import pathlib, reports; reports.render(pathlib.Path({str(folder)!r}))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    took_s = time.monotonic() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took_s, used_s, after.ru_maxrss * 1024 / 1e6


def main(arguments: Sequence[str]) -> int:
    """Print what it took, and whether it is within the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--platforms", type=int, default=4)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="testbed-report-") as base:
        folder = write_run(Path(base), given.trials, given.samples, given.platforms)
        took_s, used_s, memory_mb = render(folder)
        page_mb = (folder / "report.html").stat().st_size / 1e6
    print(f"{given.trials} trials, {given.samples} samples, {given.platforms} platforms")
    print(f"time    {took_s:6.2f} s, of processors {used_s:.2f} s (limit {LIMIT_S:g})")
    print(f"memory  {memory_mb:6.0f} MB (limit {LIMIT_MB})")
    print(f"page    {page_mb:6.2f} MB (limit {LIMIT_PAGE_MB:g})")
    return 0 if took_s <= LIMIT_S and memory_mb <= LIMIT_MB and page_mb <= LIMIT_PAGE_MB else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
