"""Readings of real processes and cgroups, and the arithmetic of the kernel's files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from runtime.cgroups import Cgroup
from testbed.sample import (
    HostReading,
    compute_steal,
    compute_utilisation,
    cpu_s,
    parse_host,
    parse_pss,
    read_host,
    read_pss_bytes,
    read_usage,
)

MIB = 1 << 20
BURN_AND_HOLD = """
import sys, time
held = bytearray(b'x') * (64 << 20)
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print('ready', flush=True)
sys.stdin.read()
"""
STAT = "cpu  100 10 50 800 20 5 5 10 7 3\ncpu0 100 10 50 800 20 5 5 10 7 3\n"
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"


@pytest.fixture
def cgroup(cgroup_parent: str) -> Iterator[Cgroup]:
    """An empty cgroup in the host's real hierarchies."""
    made = Cgroup(f"{cgroup_parent}/sampled")
    made.make_parent()
    for directory in made.directories():
        directory.mkdir(parents=True)
    yield made
    made.kill()
    made.remove()


def run_in(cgroup: Cgroup) -> subprocess.Popen[str]:
    """A process in ``cgroup`` that uses 0.3 s of CPU, says ``ready``, and holds 64 MiB until stdin ends."""

    def join() -> None:
        for directory in cgroup.directories():
            (directory / "cgroup.procs").write_text("0")

    return subprocess.Popen(
        [sys.executable, "-S", "-c", BURN_AND_HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=join,
    )


@pytest.mark.root
def test_a_reading_has_the_cpu_time_and_memory_of_the_processes(cgroup: Cgroup) -> None:
    before = read_usage(cgroup)
    assert (before.cgroup_bytes < 8 * MIB, before.pss_bytes) == (True, 0)
    with run_in(cgroup) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        after = read_usage(cgroup)
    assert 0.28 < cpu_s(before, after) < 1.0
    assert 64 * MIB < after.pss_bytes < 90 * MIB
    assert 64 * MIB < after.cgroup_bytes < 120 * MIB
    assert after.t_ns > before.t_ns


def test_pss_of_a_process_that_has_ended_is_nothing() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert read_pss_bytes([process.pid]) == 0, "a zombie"
    process.wait()
    assert read_pss_bytes([process.pid]) == 0, "a process that is gone"
    assert read_pss_bytes([os.getpid()]) > MIB


def test_pss_is_parsed_from_its_own_line() -> None:
    rollup = b"55b6ec366000-7ffc7dbb3000 ---p 00000000 00:00 0   [rollup]\nRss: 9 kB\nPss:   304 kB\nPss_Dirty: 7 kB\n"
    assert parse_pss(rollup) == 304 * 1024
    assert parse_pss(b"") == 0


def test_host_figures_leave_out_idle_io_wait_and_steal() -> None:
    before = parse_host(0, STAT, MEMINFO)
    assert before == HostReading(0, 170, 10, 1000, 600 * 1024)
    after = parse_host(1, "cpu  150 10 50 830 30 5 5 20 0 0\n", MEMINFO)
    assert compute_utilisation(before, after) == pytest.approx(0.5)
    assert compute_steal(before, after) == pytest.approx(0.1)
    assert compute_utilisation(before, before) == 0.0


def test_host_utilisation_is_a_fraction_even_when_a_counter_runs_backwards() -> None:
    before = HostReading(0, 100, 10, 1000, 0)
    assert compute_utilisation(before, HostReading(1, 99, 10, 1010, 0)) == 0.0
    assert compute_utilisation(before, HostReading(1, 120, 5, 1010, 0)) == 1.0


def test_the_host_can_be_read() -> None:
    first = read_host()
    time.sleep(0.05)
    second = read_host()
    assert second.total_ticks > first.total_ticks
    assert first.available_bytes > MIB
