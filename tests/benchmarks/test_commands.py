"""The comparison of command lines: its table, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.commands import OURS, RULER, in_milliseconds, ratios, table
from runtime.lease import CGROUP_ROOT, STATE_ROOT
from tests.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(REPOSITORY / "benchmarks" / "commands.py"), "--rounds=2", "--no-newest", "--json"]


def test_medians_and_their_ratios() -> None:
    times = {RULER: {"run": [0.001, 0.001]}, OURS: {"state": [0.001, 0.002, 0.006]}, "crun": {"state": [0.004] * 3}}
    medians = in_milliseconds(times, 2)
    assert ratios(medians) == {"ours / crun": {"state": 0.5}}
    lines = table(medians, {OURS: "1", "crun": "2"}).splitlines()
    assert lines[0] == "| ms | ours 1 | crun 2 | ours / crun |"
    assert lines[2] == "| state | 2.00 | 4.00 | 0.50 |"
    assert lines[-1] == f"{RULER}: 1.00 ms"


def left(pid: int) -> list[Path]:
    """What a benchmark has on the host."""
    cgroups = Path("/sys/fs/cgroup").glob(f"**/{CGROUP_ROOT}/benchmark-{pid}")
    return [path for path in (STATE_ROOT / f"benchmark-{pid}", *cgroups) if path.exists()]


@pytest.mark.root
def test_it_leaves_nothing() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as benchmark:
        said = benchmark.communicate(timeout=120)[0]
    assert benchmark.returncode == 0
    document = json.loads(said)
    assert {"create", "state", "start", "exec", "kill", "delete", "run"} <= set(document["median_ms"][OURS])
    assert not left(benchmark.pid)


@pytest.mark.root
@pytest.mark.parametrize("number", [1, 2, 3])
def test_interrupted_it_leaves_nothing(number: int) -> None:
    """Where it has made its so-many-th container; and again until it has ended."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as benchmark:
        containers = f"{CGROUP_ROOT}/benchmark-{benchmark.pid}/c*"
        until(lambda: any(path.name >= f"c{number}" for path in Path("/sys/fs/cgroup").glob(f"*/{containers}")))
        benchmark.send_signal(signal.SIGINT)
        while benchmark.poll() is None:
            time.sleep(0.02)
            benchmark.send_signal(signal.SIGINT)
        benchmark.communicate()
    assert benchmark.returncode == 130
    assert not left(benchmark.pid)
