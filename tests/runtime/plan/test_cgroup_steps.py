"""Control groups as steps: limits and device rules for a host, or an error that names what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups.devices import CONFINED
from runtime.cgroups.hierarchy import ALL, Hierarchies
from runtime.config.resources import DeviceRule, Pids, Resources
from runtime.errors import PrerequisiteError
from runtime.plan.cgroup import device_steps, limit_steps
from runtime.plan.steps import Write

V1 = Hierarchies({name: Path("/cg") / name for name in ("memory", "pids", "devices")}, None, frozenset(), ALL)


def test_a_missing_controller_is_named() -> None:
    bare = Hierarchies({"memory": Path("/cg")}, None, frozenset(), ALL)
    with pytest.raises(PrerequisiteError, match=r"pids.max = 3: this host has no pids controller"):
        limit_steps(bare, "x", Resources(pids=Pids(3)))


def test_device_rules_are_written_in_order_and_the_default_ones_last() -> None:
    steps = limit_steps(V1, "x", Resources(devices=(DeviceRule(False), DeviceRule(True, "b", 8, None, "r"))))
    written = [(step.path.rpartition("/")[2], step.data[0]) for step in steps if isinstance(step, Write)]
    assert written == [("devices.deny", "a"), ("devices.allow", "b 8:* r")]
    last = steps[-1]
    assert isinstance(last, Write) and last.data[-1] == "c 136:* rwm"


def test_a_host_without_either_is_told() -> None:
    with pytest.raises(PrerequisiteError, match="neither"):
        device_steps(Hierarchies({}, None, frozenset()), "x", CONFINED)
