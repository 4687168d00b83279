"""What is read of a domain, by libvirt's test driver, and what is said of one that has ended."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import TestbedError
from testbed.host.libvirt_library import load_libvirt
from testbed.sample import Meter
from testbed.xen.meter import DomainMeter, read_machine
from tests.testbed.qemu.test_schema import driver

assert driver  # a fixture

XML = "<domain type='test'><name>metered</name><memory unit='KiB'>262144</memory><os><type>hvm</type></os></domain>"


def test_a_domain_has_its_memory_and_has_used_time_and_an_ended_one_is_said_to_have_ended(driver: Any) -> None:
    domain = driver.createXML(XML, 0)
    meter: Meter = DomainMeter(domain)
    assert meter.memory_bytes() == 256 << 20
    assert meter.cpu_usage_ns() > 0
    domain.destroy()
    with pytest.raises(OSError, match="ask Xen what metered has used"):
        meter.cpu_usage_ns()


def test_the_machine_has_been_used_by_all_that_run_and_nobody_answers_once_the_connection_is_closed(
    driver: Any,
) -> None:
    before = read_machine(driver)
    domain = driver.createXML(XML, 0)
    used_ns = DomainMeter(domain).cpu_usage_ns()
    after = read_machine(driver)
    domain.destroy()
    assert after.busy_ticks - before.busy_ticks >= used_ns // 10**7 > 0
    assert after.available_bytes > 0 and (after.total_ticks, after.t_ns) > (before.total_ticks, before.t_ns)
    other = load_libvirt().open("test:///default")
    other.close()
    with pytest.raises(TestbedError, match="ask Xen what all guests have used"):
        read_machine(other)
