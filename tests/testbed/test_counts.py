"""What is counted of processes and of the host, from the kernel's own files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, Hierarchies
from testbed import counts
from testbed.counts import (
    HostCounts,
    add_exits,
    count_switches,
    parse_host_counts,
    parse_switches,
    read_counts,
    read_host_counts,
    read_switches,
    read_wakeups,
    sort_exits,
)


def test_the_hosts_interrupts_are_the_sum_that_comes_first() -> None:
    stat = b"cpu  1 2 3\nintr 500 0 9 491\nctxt 700\nbtime 5\nsoftirq 90 1 89\n"
    assert parse_host_counts(stat) == HostCounts(500, 700)
    assert read_host_counts().interrupts > 0


def test_switches_are_those_that_a_thread_wanted_and_those_it_did_not() -> None:
    assert parse_switches(b"Name:\tsh\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n") == 7


def test_a_process_that_sleeps_is_switched_each_time() -> None:
    code = "import time\nfor _ in range(50): time.sleep(0.001)\nprint(1, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        switches = read_switches([process.pid, 1 << 30])
        process.communicate(b"\n")
    assert switches is not None and switches.keys() == {process.pid}
    assert switches[process.pid] >= 50


def test_too_many_threads_are_not_counted_rather_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_THREADS", 0)
    assert read_switches([os.getpid()]) is None


def test_between_readings_a_new_thread_counts_whole_and_one_that_ended_not_at_all() -> None:
    assert count_switches({1: 10, 2: 50, 3: 90}, {1: 15, 3: 4, 4: 7}) == 5 + 4 + 7


@pytest.mark.parametrize(
    "stat", ["pgfault 9\npgmajfault 1\n", "pgfault 2\npgmajfault 0\ntotal_pgfault 9\ntotal_pgmajfault 1\n"]
)
def test_faults_are_those_of_the_cgroup_and_all_below_it(tmp_path: Path, stat: str) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "memory.stat").write_text(stat)
    (tmp_path / "web" / "cgroup.procs").write_text("")
    read = read_counts(Cgroup("web", Hierarchies({}, tmp_path, frozenset({"memory"}))))
    assert (read.page_faults, read.major_faults, read.switches, read.exits) == (9, 1, {}, None)


def test_what_no_reason_explains_of_all_exits_is_other() -> None:
    sorted_exits = sort_exits({"exits": 100, "halt_exits": 30, "io_exits": 20, "tlb_flush": 7})
    assert sorted_exits == {"exits": 100, "halt": 30, "io": 20, "other": 50}
    assert sort_exits({"halt_exits": 3}) is None
    assert add_exits([{"exits": 1, "io": 1}, {"exits": 2, "halt": 2}]) == {"exits": 3, "io": 1, "halt": 2}


def test_a_thread_that_sleeps_is_woken_as_often() -> None:
    script = "import time\nfor _ in range(30): time.sleep(0.005)\nprint('slept', flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"slept\n"
        (woken,) = (read_wakeups([process.pid]) or {}).values()
        (switched,) = (read_switches([process.pid]) or {}).values()
        process.kill()
    assert 30 <= woken <= switched
    status = b"Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n"
    assert (parse_switches(status), parse_switches(status, (b"voluntary_ctxt_switches:",))) == (12, 7)
