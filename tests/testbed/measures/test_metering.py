"""What a platform of processes has no figures of, and what one of libvirt's domains has, by its test driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.spec import Process, Spec
from testbed.lab import Lab
from testbed.measures import counting, metering
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.paravirtual import ParavirtualPlatform
from testbed.platforms.protocol import Instance
from testbed.xen.meter import DomainMeter
from tests.testbed.qemu.test_schema import driver
from tests.testbed.xen.test_meter import XML

assert driver  # a fixture


def instance(name: str) -> Instance:
    return Instance(name, 0, {"web": Spec(Process(args=("true",)), (), "web")}, Path("/dev/null"))


def test_processes_are_in_cgroups_and_have_no_other_meter() -> None:
    assert metering.read(ContainerPlatform("run", Lab()), [instance("a")]) == ()


def test_guests_are_summed_up_and_one_that_has_ended_leaves_no_figures(
    driver: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    platform = ParavirtualPlatform("run", tmp_path, Lab())
    domains = {name: driver.createXML(XML.replace("metered", name), 0) for name in ("a", "b")}
    monkeypatch.setattr(platform, "meter", lambda one: DomainMeter(domains[one.name]))
    used, held = metering.read(platform, [instance("a"), instance("b")])
    assert (used.metric, used.unit, held.metric, held.value) == ("metered_cpu", "s", "metered_memory", 512 << 20)
    assert used.value > 0
    assert counting.read(platform, [instance("a")]) is None
    domains["b"].destroy()
    assert metering.read(platform, [instance("a"), instance("b")]) == ()
