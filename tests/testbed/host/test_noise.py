"""What disturbs a trial is seen over its window; what the experiment does itself is no disturbance."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from testbed.host import noise
from testbed.host.noise import (
    Moment,
    Observation,
    Process,
    Watch,
    compare,
    count_foreign_ticks,
    find_unattributed,
    parse_process,
)
from testbed.sample import HostReading
from tests.waiting import until

SPIN = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
STAT = "{pid} ({name}) R {parent} 1 1 0 -1 {flags} 1 2 3 4 {user} {system} {waited} 0 20 0 1 0 {started} 1 1 1"


def stat(pid: int = 7, name: str = "web", flags: int = 0, **fields: int) -> str:
    values = {"parent": 1, "user": 0, "system": 0, "waited": 0, "started": 5, **fields}
    return STAT.format(pid=pid, name=name, flags=flags, **values)


def test_a_process_is_read_with_the_children_that_it_waited_for() -> None:
    assert parse_process(stat(user=3, system=4, waited=5)) == (Process("web", 1, 5, 12), False)
    assert parse_process(stat(name=") R 1 (", user=3)) == (Process(") R 1 (", 1, 5, 3), False)
    assert parse_process(stat(pid=1, name="init", user=3, waited=500))[0].ticks == 3, "init waits for everybody's"
    assert parse_process(stat(name="kworker/0:1", flags=0x00200040))[1]


def process(ticks: int, parent: int = 1, started: int = 5, command: str = "cc") -> Process:
    return Process(command, parent, started, ticks)


def test_what_others_used_is_the_difference_of_those_that_stay_and_all_of_those_that_came() -> None:
    before = {10: process(100, command="shell"), 11: process(7, parent=10)}
    after = {10: process(150, command="shell"), 11: process(9, parent=10), 12: process(30, parent=10)}
    assert count_foreign_ticks(before, after) == {"shell": 50, "cc": 32}
    assert count_foreign_ticks(after, after) == {}


def test_a_process_that_ended_counts_in_its_parent_without_what_it_used_before() -> None:
    before = {10: process(100, command="shell"), 11: process(70, parent=10)}
    assert count_foreign_ticks(before, {10: process(180, command="shell")}) == {"shell": 10}
    again = {10: process(170, command="shell"), 11: process(3, parent=10, started=99)}
    assert count_foreign_ticks(before, again) == {"cc": 3}, "the pid was used again"


def test_what_ended_below_what_ended_is_not_counted_twice() -> None:
    """make (pid 11) and its compiler (12) end: the shell (10) has both in its account."""
    before = {10: process(5, command="shell"), 11: process(20, 10, command="make"), 12: process(1000, 11)}
    assert count_foreign_ticks(before, {10: process(5 + 20 + 1000 + 7, command="shell")}) == {"shell": 7}
    assert count_foreign_ticks(before, {1: process(3, 0, command="init"), 10: process(5, command="shell")}) == {
        "init": 3
    }


def host(t_s: float, total: int, stolen: int = 0) -> HostReading:
    return HostReading(round(t_s * 1e9), 0, stolen, total, 0)


def test_each_kind_of_disturbance_is_a_sentence_above_its_limit_only() -> None:
    quiet = Moment(host(0, 0), {10: process(0)}, {"memory": 0, "io": 0, "cpu": 0})
    loud = Moment(host(10, 2000, 50), {10: process(300)}, {"memory": 500_000, "io": 2_000_000, "cpu": 9_000_000})
    seen = compare(quiet, loud)
    assert seen.figures == {
        "steal": 0.025, "foreign_cpu": 0.15, "pressure_memory": 0.05, "pressure_io": 0.2, "pressure_cpu": 0.9,
    }  # fmt: skip
    assert [sentence.partition(" ")[0] for sentence in seen.disturbances] == ["the", "other", "all", "all"]
    assert "15% of the processors' time (cc)" in seen.disturbances[1]
    pressed = compare(quiet, loud, pressed=True)
    assert pressed.figures == seen.figures and pressed.disturbances == seen.disturbances[:2], "the trial's own doing"
    given = compare(quiet, loud, gives_time=True)
    assert given.figures == seen.figures and given.disturbances == seen.disturbances[1:], "the trial's own guests"
    slight = Moment(host(10, 2000, 19), {10: process(99)}, {"memory": 90_000, "io": 900_000, "cpu": 9_000_000})
    assert compare(quiet, slight).disturbances == ()
    assert compare(quiet, Moment(host(0, 0), {}, {})).disturbances == ()
    named = Moment(host(10, 2000), {10: process(300, command="\x1b[2Jcc")}, {})
    assert "(cc)" in compare(quiet, named).disturbances[0], "a process chooses its name itself"


ORPHAN = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SPIN!r}], stdout=subprocess.DEVNULL, start_new_session=True).pid)
"""


def test_a_program_of_somebody_elses_is_noise_and_a_child_of_ours_is_not() -> None:
    watch = Watch()
    watch.begin()
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    orphan = int(subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, check=True).stdout)
    others = noise.read_other_processes(os.getpid(), "")
    child.wait()
    assert orphan in others and child.pid not in others and os.getpid() not in others
    assert watch.end().figures["foreign_cpu"] > 0.1


def test_a_trial_knows_when_it_ran() -> None:
    """By the host's monotonic clock; the next one begins where it ends."""
    watch = Watch()
    watch.begin()
    first, second = watch.end().figures, watch.end().figures
    assert first["began_s"] <= time.monotonic() and 0 <= first["took_s"] < 60
    assert second["began_s"] == pytest.approx(first["began_s"] + first["took_s"], abs=0.002)


@pytest.mark.root
def test_what_the_limit_of_processor_time_holds_back_is_counted_for_each_trial(limited: Cgroup) -> None:
    watch = Watch(limited.name)
    watch.begin()
    watch.running([limited])
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinner:
        try:
            for directory in limited.directories():
                (directory / "cgroup.procs").write_text(str(spinner.pid))
            until(lambda: limited.throttling().throttled >= 5 and limited.throttling().fraction > 0.6)
            first = watch.end().figures
        finally:
            spinner.kill()
    counted = limited.throttling()
    assert first["throttled_periods"] > 0.5 and first["throttled_s"] > 0.2
    assert 5 / counted.periods - 1e-4 <= first["throttled_periods"] <= 1
    assert first["throttled_s"] <= counted.throttled_ns / 1e9 + 1e-4
    time.sleep(0.15)
    watch.end()
    assert watch.end().figures.get("throttled_periods", 0.0) == 0.0, "a trial's own, not since the beginning"
    watch.stopping([limited])
    assert "throttled_periods" not in watch.end().figures


@pytest.mark.root
def test_what_is_in_the_runs_cgroup_is_ours_whoever_its_parent_is(limited: Cgroup) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        for directory in limited.directories():
            (directory / "cgroup.procs").write_text(str(sleeper.pid))
        above = limited.name.rpartition("/")[0]
        assert sleeper.pid in noise.read_other_processes(own=-1, cgroup="testbed/another")
        assert sleeper.pid not in noise.read_other_processes(own=-1, cgroup=above)
        assert sleeper.pid in noise.read_other_processes(own=-1, cgroup=above[:-1])
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_host_without_pressure_figures_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "PROC", tmp_path)
    assert noise.read_pressure_usec() == {}
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=42\n")
    assert noise.read_pressure_usec() == {"cpu": 42}


@pytest.mark.parametrize(
    ("others", "foreign", "flagged"), [(None, 0, False), (0.04, 0, False), (0.06, 0, True), (0.3, 0.27, False)]
)
def test_time_that_nobody_accounts_for_is_told_unless_other_programs_explain_it(
    others: float | None, foreign: float, flagged: bool
) -> None:
    assert bool(find_unattributed(others, Observation({"foreign_cpu": foreign}, ()))) is flagged
