"""Readings of real processes and cgroups, and the arithmetic of the kernel's files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from runtime.cgroups import Cgroup, Throttling
from testbed.sample import (
    HostReading,
    Row,
    Sampler,
    compute_steal,
    compute_utilisation,
    cpu_s,
    parse_host,
    parse_pss,
    read_host,
    read_pss_bytes,
    read_usage,
    summarise_usage,
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


@pytest.mark.root
def test_the_sampler_covers_its_window_from_edge_to_edge(cgroup: Cgroup) -> None:
    with Sampler({"web": cgroup}, interval_s=0.1) as sampler, run_in(cgroup) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(0.25)
    usage = summarise_usage(sampler.rows, "web")
    assert 0.28 < usage.cpu_s < 1.0
    assert usage.samples == len(sampler.rows) >= 5
    assert sampler.rows[0].cpu_ns == 0
    assert [row.t_s for row in sampler.rows] == sorted(row.t_s for row in sampler.rows)
    assert max(row.pss_bytes for row in sampler.rows) > 64 * MIB
    assert 0.1 < max(row.busy for row in sampler.host_rows) <= 1.0
    assert all(row.available_bytes > 0 for row in sampler.host_rows)
    assert 0 < sampler.sampler_cpu_s < 0.1


@pytest.mark.root
def test_the_sampler_sees_what_the_quota_holds_back(limited: Cgroup) -> None:
    """A tenth of a processor, and a process that wants all of it."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for directory in limited.directories():
            (directory / "cgroup.procs").write_text(str(spinner.pid))
        time.sleep(0.3)
        with Sampler({"web": limited}, interval_s=0.1) as sampler:
            time.sleep(0.7)
    finally:
        spinner.kill()
        spinner.wait()
    held_back = summarise_usage(sampler.rows, "web").throttling
    assert 4 <= held_back.periods <= 9 and held_back.throttled >= held_back.periods - 2
    assert 0.3e9 < held_back.throttled_ns < 0.9e9
    assert sampler.rows[0].throttling == Throttling(), "counted from the first sample on, not from the cgroup's making"


@pytest.mark.root
def test_an_instance_that_ends_while_sampled_is_lost_not_an_error(cgroup: Cgroup) -> None:
    with Sampler({"web": cgroup}, interval_s=0.05) as sampler:
        with run_in(cgroup) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
        cgroup.remove()
        time.sleep(0.15)
    assert sampler.lost == {"web"}
    assert sampler.rows


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_seen(tmp_path: Path) -> None:
    class Unreadable(Cgroup, frozen=True):
        calls: ClassVar[int] = 0

        def cpu_usage_ns(self) -> int:
            Unreadable.calls += 1
            if Unreadable.calls > 1:
                raise ValueError("cpuacct.usage: not a number")
            return 0

        def memory_bytes(self) -> int:
            return 0

        def pids(self) -> tuple[int, ...]:
            return ()

        def throttling(self) -> Throttling:
            return Throttling()

    with pytest.raises(ValueError, match="not a number"), Sampler({"web": Unreadable("testbed/none")}, interval_s=0.01):
        time.sleep(0.1)


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


def test_usage_is_of_one_name_in_one_window() -> None:
    rows = [
        Row(0.0, "web", 0, 100, 10),
        Row(1.0, "web", 500_000_000, 200, 20),
        Row(1.0, "redis", 9_000_000_000, 7, 7),
        Row(2.0, "web", 700_000_000, 600, 30),
    ]
    assert summarise_usage(rows, "web").cpu_s == pytest.approx(0.7)
    assert summarise_usage(rows, "web").cgroup_bytes == 300
    late = summarise_usage(rows, "web", since_s=0.5)
    assert late.cpu_s == pytest.approx(0.2)
    assert (late.cgroup_bytes, late.pss_bytes, late.samples) == (400, 25, 2)
    assert summarise_usage(rows, "absent").samples == 0
