"""The plan of a service in a full system: the container's and the guest's own steps, in a mount namespace only."""

from __future__ import annotations

import os

from runtime.plan.constants import CLONE_NEWNS
from runtime.plan.steps import Exec, LoadModule, LogLine, Mount, Netlink, Open, PivotRoot, Unshare
from runtime.spec import Process, Resources, Spec, User
from vm_images.plans.guest import EXECUTING, guest_plan
from vm_images.plans.unit import DISK, SERIAL, unit_plan

SPEC = Spec(Process(("serve",), user=User(1000, 1000)), ("/layer",), "web", Resources(128 << 20, 1.0, 64))


def test_from_the_roots_file_systems_on_it_is_the_guests_own() -> None:
    """Same bytes, same process: the unit says what standard input is."""
    one, other = unit_plan(SPEC).child, guest_plan(SPEC, ()).child
    last = other[other.index(LogLine(EXECUTING)) - 15 :]
    assert [step for step in last if step not in one] == [Open("/dev/null", 0, os.O_RDONLY)]
    assert isinstance(one[-1], Exec)
    assert one[-2] == LogLine(EXECUTING)


def test_it_does_not_bring_up_what_the_system_has() -> None:
    plan = unit_plan(SPEC)
    assert plan.parent == ()
    assert plan.clone_flags == 0
    assert not [step for step in plan.child if isinstance(step, LoadModule | Netlink)]
    assert [step.flags for step in plan.child if isinstance(step, Unshare)] == [CLONE_NEWNS]


def test_the_disk_is_found_by_its_serial_number_before_the_root_is_let_go() -> None:
    steps = list(unit_plan(SPEC).child)
    mounted = next(index for index, step in enumerate(steps) if isinstance(step, Mount) and step.source == DISK)
    assert DISK.endswith(SERIAL)
    assert mounted < next(index for index, step in enumerate(steps) if isinstance(step, PivotRoot))
