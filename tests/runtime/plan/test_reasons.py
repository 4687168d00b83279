"""Every step of every plan has a purpose that a reader is told."""

from __future__ import annotations

import itertools
from pathlib import Path

from runtime.cgroups import Hierarchies
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.explain import explain
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec
from vm_images.plans.guest import guest_plan

V1 = Hierarchies({name: Path("/cg") / name for name in ("memory", "cpu", "pids", "devices")}, None, frozenset())
SPEC = Spec(Process(args=("true",)), ("/store/a",), "one", Resources(pids=9))


def test_every_step_of_both_platforms_has_a_reason() -> None:
    for plan in (workload_plan(SPEC, V1, "testbed/r/i"), guest_plan(SPEC, ["/m.ko"])):
        assert all(step.reason().endswith(".") for step in plan.steps())


def test_a_cgroup_is_told_from_the_root_file_system() -> None:
    assert "charges and limits" in s.Mkdir("/sys/fs/cgroup/pids/testbed/r").reason()
    assert "charges and limits" in s.Write("/cg/testbed/r/memory.max", ("1",)).reason()
    assert "Enter the cgroup" in s.Write("/cg/testbed/r/tasks", ("0",)).reason()
    assert "/dev" in s.Mkdir("dev/pts").reason()
    assert "layers" in s.Mkdir("/tmp/upper").reason()


def test_what_becomes_of_a_whole_tree_of_mounts_is_told_apart() -> None:
    assert "do not show on the host" in s.Mount("", "/", "", k.MS_REC | k.MS_SLAVE).reason()
    assert "as its configuration says" in s.Mount("", "/", "", k.MS_SHARED).reason()
    assert "new root" in s.Mount(".", "/", "", k.MS_MOVE).reason()


def test_a_purpose_stands_once_above_the_steps_that_share_it() -> None:
    lines = explain(workload_plan(SPEC, V1, "testbed/r/i")).splitlines()
    purposes = [line for line in lines if line.startswith("# ")]
    assert lines[0] == purposes[0]
    assert all(first != second for first, second in itertools.pairwise(purposes))
    assert len(purposes) < len(lines) / 3
