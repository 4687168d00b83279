"""Describes its clocks to a guest's kernel, where its machine has nothing to measure them by."""

from __future__ import annotations

import re
from pathlib import Path


def parse_tsc_khz(cpuinfo: str) -> int | None:
    """Return the rate of the processor's time stamp counter in kHz, from /proc/cpuinfo; None where it does not say.

    Where the counter's rate is constant, the kernel derives its delay loop from it (arch/x86/kernel/tsc.c, lpj_fine)
    and shows that as BogoMIPS: two loops a tick, so half of them are MHz. QEMU's translator and KVM both show guests
    the host's own counter.
    """
    rate = re.search(r"^bogomips\s*: ([0-9.]+)$", cpuinfo, re.MULTILINE)
    constant = re.search(r"^flags\s*:.*\bconstant_tsc\b", cpuinfo, re.MULTILINE)
    return round(float(rate.group(1)) * 500) if rate and constant else None


def clock_options() -> str:
    """Return the kernel options for a machine without HPET and ACPI timer.

    The kernel would time its counter by the PIT alone, and, on a busy host, fail and never get on.
    """
    rate_khz = parse_tsc_khz(Path("/proc/cpuinfo").read_text())
    return f" tsc_early_khz={rate_khz}" if rate_khz else ""
