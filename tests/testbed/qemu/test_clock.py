"""The counter's rate, as the host's kernel shows it."""

from __future__ import annotations

from pathlib import Path

from testbed.qemu.clock import clock_options, parse_tsc_khz


def test_half_of_bogomips_is_the_counters_rate() -> None:
    assert parse_tsc_khz("flags\t\t: fpu constant_tsc sse\nbogomips\t: 5199.98\n") == 2_599_990
    assert parse_tsc_khz("flags\t\t: fpu sse\nbogomips\t: 5199.98\n") is None
    assert parse_tsc_khz("processor: 0\n") is None


def test_the_options_name_this_hosts_rate() -> None:
    rate_khz = parse_tsc_khz(Path("/proc/cpuinfo").read_text())
    assert ("tsc_early_khz" in clock_options()) == (rate_khz is not None)
