"""What the load generator offers from one processor, how late it is, and what it costs, beside wrk and httperf.

    .venv/bin/python benchmarks/generator.py [--rates 1000,5000,20000] [--seconds 4] [--rounds 3] [--busy N] [--json]

All ask the same server in the same run: reference/http_server.c on loopback, which takes a few microseconds a request.
A round has each generator at each rate once, in random order, with CONNECTIONS connections; the figures are medians
over rounds. ``lag`` is how late a request was turned to, which the others do not tell. wrk is a closed loop: it asks as
fast as it is answered, its latency leaves out what waits elsewhere, and it stands for what the server can do. httperf
waits busily for its next connection, of which each carries CALLS requests in a row. ``cpu`` is of one processor,
without the server's. ``--busy`` runs so many processes beside that never sleep, as a workload's might.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform, run  # noqa: E402
from benchmarks.peers import REFERENCE  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from runtime.launcher.build import WARNINGS, compile_program  # noqa: E402
from testbed.histograms import build_histogram  # noqa: E402
from testbed.load.open_loop import OfferedLoad, Target, offer  # noqa: E402

CONNECTIONS, CALLS = 64, 20
WARM_UP_S = 0.5
OURS, WRK, HTTPERF = "testbed", "wrk (closed loop)", "httperf"
COLUMNS = (
    "achieved",
    "lag_p50",
    "lag_p99",
    "lag_p99_9",
    "latency_p50",
    "latency_p99",
    "latency_p99_9",
    "cpu",
    "failed",
)
Figures = dict[str, float]


@contextmanager
def serve() -> Iterator[int]:
    """Compile the server, run it, and yield its port."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "http_server")
        compile_program(["gcc", *WARNINGS, "-O2", str(REFERENCE / "http_server.c")], binary)
        with subprocess.Popen([binary], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                yield int(server.stdout.readline())
            finally:
                server.kill()


@contextmanager
def keep_busy(processes: int) -> Iterator[None]:
    """Run so many processes that never sleep."""
    with ExitStack() as undo:
        for _ in range(processes):
            one = undo.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            undo.callback(one.kill)
        yield


def ask_by_ours(port: int, rate_per_s: int, seconds: float, seed: int) -> Figures:
    load = OfferedLoad(Target("127.0.0.1", port), rate_per_s, seconds, CONNECTIONS, seed, warmup_s=WARM_UP_S)
    report = offer([load.plan()])
    (stream,) = report.streams
    elapsed_s = max(seconds, (stream.last_ns - report.began_ns) / 1e9)
    lags, latencies = build_histogram(report.lags_usec), build_histogram(stream.ok_usec)
    figures = {"achieved": len(stream.ok_usec) / elapsed_s, "cpu": report.cpu_ns / 1e9 / elapsed_s}
    for name, percentile in (("p50", 50), ("p99", 99), ("p99_9", 99.9)):
        figures[f"lag_{name}"] = float(lags.get_value_at_percentile(percentile))
        figures[f"latency_{name}"] = float(latencies.get_value_at_percentile(percentile))
    return figures | {"failed": sum(stream.failures.values())}


def ask_by_wrk(port: int, seconds: float) -> Figures:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "--latency", f"http://127.0.0.1:{port}/"]
    ran = run(command)
    said, cpu_s = ran.said, ran.cpu_s
    figures = {"achieved": find(r"Requests/sec:\s+([0-9.]+)", said), "cpu": cpu_s / round(seconds), "failed": 0.0}
    for name, percentile in (("p50", "50"), ("p99", "99")):
        found = re.search(rf"\s{percentile}%\s+([0-9.]+)(us|ms|s)", said)
        if found:
            figures[f"latency_{name}"] = float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]
    return figures


def ask_by_httperf(port: int, rate_per_s: int, seconds: float) -> Figures:
    connections = round(rate_per_s * seconds / CALLS)
    command = ["httperf", "--hog", "--server", "127.0.0.1", "--port", str(port), "--uri", "/", "--timeout", "10"]
    command += ["--rate", str(rate_per_s / CALLS), "--num-conns", str(connections), "--num-calls", str(CALLS)]
    ran = run(command)
    said, cpu_s = ran.said, ran.cpu_s
    return {
        "achieved": find(r"Reply rate.*avg ([0-9.]+)", said) or find(r"Request rate: ([0-9.]+)", said),
        "cpu": cpu_s / find(r"test-duration ([0-9.]+) s", said),
        "failed": find(r"Errors: total ([0-9]+)", said),
    }


def find(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    return float(found[1]) if found else 0.0


def measure(port: int, rates: list[int], seconds: float, rounds: int) -> dict[tuple[str, int], Figures]:
    """Return the medians by generator and offered rate (0: as fast as it goes)."""
    kinds = [(OURS, rate) for rate in rates]
    kinds += [(HTTPERF, rate) for rate in rates] if shutil.which("httperf") else []
    kinds += [(WRK, 0)] if shutil.which("wrk") else []
    chance, seen = random.Random(1), defaultdict[tuple[str, int], list[Figures]](list)
    for number in range(rounds):
        for name, rate in chance.sample(kinds, len(kinds)):
            print(f"round {number + 1} of {rounds}: {name} {rate or ''}", file=sys.stderr)
            if name == OURS:
                figures = ask_by_ours(port, rate, seconds, number)
            else:
                figures = ask_by_wrk(port, seconds) if name == WRK else ask_by_httperf(port, rate, seconds)
            seen[name, rate].append(figures)
    return {
        kind: {name: median(one.get(name, float("nan")) for one in seen[kind]) for name in COLUMNS} for kind in kinds
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rates", default="1000,5000,20000,30000", help="requests per second, with commas")
    options.add_argument("--seconds", type=float, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--busy", type=int, default=0, help="processes beside that never sleep")
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    try:
        rates = [int(rate) for rate in arguments.rates.split(",")]
    except ValueError as error:
        raise UsageError(f"--rates {arguments.rates}: not whole numbers with commas") from error
    with serve() as port, keep_busy(arguments.busy):
        rows = measure(port, rates, arguments.seconds, arguments.rounds)
    if arguments.json:
        print(json.dumps([{"generator": name, "offered": rate, **row} for (name, rate), row in rows.items()], indent=2))
        return
    print(f"{'requests/s, microseconds':20}{'offered':>9}" + "".join(f"{name:>14}" for name in COLUMNS))
    for (name, rate), row in rows.items():
        cells = (f"{row[column]:14.2f}" if column == "cpu" else f"{row[column]:14.0f}" for column in COLUMNS)
        print(f"{name:20}{rate or 'all':>13}" + "".join(cells))


if __name__ == "__main__":
    perform(main)
