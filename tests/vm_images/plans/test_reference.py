"""The plan of the reference machine."""

from __future__ import annotations

from runtime.plan import steps as s
from runtime.plan.encode import encode
from vm_images.plans.container_host import LAYERS
from vm_images.plans.reference import ReferenceMachine, reference_plan

MACHINE = ReferenceMachine("/dev/pmem1", ("base", "inputs"), ("python3", "-m", "program"), "/packages", ("A=b",))
STEPS = reference_plan(MACHINE, ("/modules/nfit.ko",)).child


def test_its_root_is_layers_of_its_disk_and_it_becomes_the_program() -> None:
    mounts = [step for step in STEPS if isinstance(step, s.Mount)]
    assert mounts[1].source == "/dev/pmem1" and mounts[1].fstype == "erofs"
    last = STEPS[-1]
    assert isinstance(last, s.Exec) and last.args == ("python3", "-m", "program")
    assert "A=b" in last.env
    assert any(step.source == "/lower" and step.target.endswith(LAYERS) for step in mounts)


def test_it_has_all_devices_and_cgroup_v2_as_a_host_has_them() -> None:
    mounted = {step.target: step.fstype for step in STEPS if isinstance(step, s.Mount)}
    assert mounted["dev"] == "devtmpfs" and mounted["sys/fs/cgroup"] == "cgroup2"
    writable = [step for step in STEPS if isinstance(step, s.Mount) and step.target == "sys"]
    assert not any(step.flags & 1 for step in writable)  # MS_RDONLY: KSM and huge pages are set there


def test_it_can_be_encoded() -> None:
    assert encode(reference_plan(MACHINE, ())) == encode(reference_plan(MACHINE, ()))
