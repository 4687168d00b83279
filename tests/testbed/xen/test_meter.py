"""What is read of a domain, by libvirt's test driver, and what is said of one that has ended."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.sample import Meter
from testbed.xen.meter import DomainMeter
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
