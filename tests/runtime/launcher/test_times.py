"""The steps of a plan can be timed, and are only when somebody asks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtime.launcher import Launch, StepError, launch
from runtime.launcher.memory import memory_file
from runtime.launcher.times import time_steps
from runtime.plan import constants as k
from runtime.plan import steps as s

pytestmark = pytest.mark.root


def run(plan: s.Plan) -> int:
    with Path(os.devnull).open("r+b") as null:
        spawned = launch(plan, stdin=null.fileno(), stdout=null.fileno(), stderr=null.fileno())
    return os.waitstatus_to_exitcode(os.waitpid(spawned.pid, 0)[1])


def plan_waiting_for(path: Path) -> s.Plan:
    """One whose third step waits 30 ms in vain, and that goes on."""
    wait = s.WaitPath(str(path), 30, tolerate=(110,))
    return s.Plan((s.Umask(0o22), wait, s.Exec(("/bin/true",), ())), (s.Umask(0),), k.CLONE_NEWUTS | k.CLONE_NEWIPC)


def test_each_step_has_its_time(tmp_path: Path) -> None:
    before_ns = time.monotonic_ns()
    with time_steps() as times:
        assert run(plan_waiting_for(tmp_path / "absent")) == 0
    (one,) = times
    durations = list(one.list_durations_ns())
    names = [step and type(step).__name__ for step, _ in durations]
    assert names == ["NoteTimes", "Umask", None, "Umask", "WaitPath", "Exec"]
    took = dict(zip(names, (ns for _, ns in durations), strict=True))
    assert 30e6 <= took["WaitPath"] and all(ns > 0 for _, ns in durations)
    assert sum(ns for _, ns in durations) == one.executed_ns - one.begun_ns
    assert before_ns <= one.begun_ns < one.child_ns < one.executed_ns <= time.monotonic_ns()


@pytest.mark.parametrize("shift_s", [-1, 3600], ids=["back", "on"])
def test_another_clock_inside_changes_no_time(shift_s: int) -> None:
    """The child notes times by the monotonic clock of its own time namespace."""
    shifted = s.Write(k.TIME_OFFSETS, (f"monotonic {shift_s} 500", "boottime 1 0"))
    child = (s.Umask(0o22), s.Exec(("/bin/true",), ()))
    with time_steps() as times:
        assert run(s.Plan(child, (s.Unshare(k.CLONE_NEWTIME), shifted), k.CLONE_NEWUTS)) == 0
    (one,) = times
    assert one.begun_ns < one.child_ns < one.executed_ns
    assert all(0 < ns < 1e9 for _, ns in one.list_durations_ns())


def test_nothing_is_timed_unless_asked(tmp_path: Path) -> None:
    with time_steps() as times:
        pass
    assert run(plan_waiting_for(tmp_path / "absent")) == 0
    assert times == []


def test_a_step_that_fails_has_its_own_name(tmp_path: Path) -> None:
    plan = s.Plan((s.Chdir(str(tmp_path / "absent")), s.Exec(("/bin/true",), ())))
    with time_steps() as times, pytest.raises(StepError, match="step 1: chdir"):
        run(plan)
    assert times == []
    with pytest.raises(StepError, match="step 0: chdir"):
        run(plan)


def test_memory_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """It would be written beyond its end."""
    plan = s.Plan((s.NoteTimes(s.TIMES_FD), s.Exec(("/bin/true",), ())))
    with (
        memory_file("short", bytes(16)) as file,
        Launch(plan, {s.TIMES_FD: file}) as starting,
        pytest.raises(StepError, match="No space"),
    ):
        starting.next()
