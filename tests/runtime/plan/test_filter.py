"""The filter of system calls: the same one before a workload wherever it runs, and none where none is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.plan import steps as s
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec
from testbed.platforms.libvirt_lxc import init_plan
from vm_images.plans.guest import guest_plan
from vm_images.plans.pod import pod_plan
from vm_images.plans.unit import unit_plan

V2 = Hierarchies({}, Path("/cg"), frozenset({"cpu", "memory", "pids"}))
SPEC = Spec(Process(("server",)), ("/store/a",), "web", Resources(64 << 20, 0.5, 32))
PLANS: dict[str, Callable[[Spec], s.Plan]] = {
    "container": lambda spec: workload_plan(spec, V2, "testbed/r/i"),
    "guest": lambda spec: guest_plan(spec, ()),
    "saved guest": lambda spec: guest_plan(spec, (), served=True),
    "pod": lambda spec: pod_plan({"web": spec}, {"web": "/dev/vda"}, None, ()),
    "unit": unit_plan,
    "libvirt-lxc": init_plan,
}


def filters(plan: s.Plan) -> list[s.SeccompFilter]:
    return [step for step in plan.steps() if isinstance(step, s.SeccompFilter)]


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_it_is_the_containers_everywhere_and_last(make: Callable[[Spec], s.Plan]) -> None:
    plan = make(SPEC)
    assert filters(plan) == filters(PLANS["container"](SPEC)) != []
    steps = list(plan.steps())
    after = steps[steps.index(filters(plan)[0]) + 1 :]
    assert isinstance(next(step for step in after if not isinstance(step, s.LogLine)), s.Exec)


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_it_is_left_away_where_asked_for(make: Callable[[Spec], s.Plan]) -> None:
    assert filters(make(replace(SPEC, seccomp=False))) == []


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_who_may_gain_privileges_gets_it_while_it_has_them(make: Callable[[Spec], s.Plan]) -> None:
    plan = make(replace(SPEC, process=replace(SPEC.process, no_new_privileges=False)))
    steps = list(plan.steps())
    (step,) = filters(plan)
    assert steps.index(step) < next(n for n, one in enumerate(steps) if isinstance(one, s.BoundingSet))
