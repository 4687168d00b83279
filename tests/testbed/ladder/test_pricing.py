"""What a rung costs: blocks from a seed, and what is made of times and memory."""

from __future__ import annotations

import pytest

from runtime.launcher.times import StepTimes
from runtime.plan import constants as k
from runtime.plan import steps as s
from testbed.ladder.costs import FULL, QUICK_VIRTUAL, Step, compute_copies, list_steps
from testbed.ladder.image import PROGRAM
from testbed.ladder.parts import describe_step, find_part
from testbed.ladder.pricing import draw_blocks

EFFORTS = {"a": FULL, "b": FULL, "vm": QUICK_VIRTUAL}


def test_each_block_has_each_rung_once_in_an_order_that_the_seed_decides() -> None:
    blocks = list(draw_blocks(EFFORTS, 1))
    assert [sorted(one.name for one in block) for block in blocks[:2]] == [["a", "b", "vm"], ["a", "b"]]
    assert all(len({one.name for one in block}) == len(block) for block in blocks)
    assert [block[0].kind for block in blocks] == ["instance"] * 7 + ["load"] * 2 + ["copies"]
    assert blocks == list(draw_blocks(EFFORTS, 1))
    orders = {tuple(one.name for one in next(draw_blocks(EFFORTS, seed))) for seed in range(20)}
    assert len(orders) > 3


def test_copies_are_counted_by_what_each_further_one_takes() -> None:
    mib = 1 << 20
    assert compute_copies([9 * mib, 3 * mib, 2 * mib, mib]) == pytest.approx(512)
    assert compute_copies([2 * mib, 2 * mib]) is None, "too few"
    assert compute_copies([2 * mib, 0, 0, 0, 0]) is None, "nothing that could be seen"
    assert compute_copies([]) is None


def test_steps_are_told_by_their_part_and_those_of_others_programs_are_not_ours() -> None:
    plan = s.Plan(
        (s.Mount("proc", "/proc", "proc"), s.SetHostname("x"), s.Exec((PROGRAM, "1", "2"))),
        (s.Write("/sys/fs/cgroup/pids/testbed/r/cgroup.procs", ("0",)),),
        k.CLONE_NEWPID | k.CLONE_NEWUTS,
    )
    times = StepTimes(plan, 1000, (2000, 7000, 8000, 0), 5000, 9000)
    assert list_steps([times]) == (
        Step(next(plan.steps()).describe(), "cgroup", 1.0),
        Step("clone3 with new namespaces: uts, pid", "namespaces", 3.0),
        Step(plan.child[0].describe(), "mounts and masks", 2.0),
        Step(plan.child[1].describe(), "mounts and masks", 1.0),
        Step(plan.child[2].describe(), "exec", 1.0),
    )
    other = StepTimes(s.Plan((s.Exec(("/usr/bin/crun",)),)), 0, (0,), 5, 9)
    assert list_steps([other]) == () and list_steps([]) == ()
    assert list_steps([times, other]) == list_steps([times])


def test_a_namespace_is_named_whichever_call_makes_it() -> None:
    assert describe_step(s.Unshare(k.CLONE_NEWNET), 0) == "unshare: network"
    assert find_part(s.Unshare(k.CLONE_NEWNET)) == "namespaces"
    assert find_part(s.NoteTimes(s.TIMES_FD)) == "launcher"
    assert describe_step(None, 0) == "clone3 with new namespaces: none"
