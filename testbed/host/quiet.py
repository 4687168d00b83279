"""Watches whether the host is quiet before a run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from testbed.host.facts import read_facts
from testbed.sample import HostReading, compute_steal, compute_utilisation, read_host

# More than this before a run starts is not a quiet host: a quarter of the processors, 1 % of the time stolen.
NOISY_LOAD_PER_CPU = 0.25
NOISY_UTILISATION = 0.25
NOISY_STEAL = 0.01


def watch_noise(window_s: float = 0.3) -> tuple[str, ...]:
    """Return what on the host would disturb a measurement now, a sentence each; watches it for ``window_s``."""
    before = read_host()
    time.sleep(window_s)
    return find_disturbances(before, read_host(), read_facts())


def find_disturbances(before: HostReading, after: HostReading, host: Mapping[str, object]) -> tuple[str, ...]:
    """Return the warnings of ``watch_noise``, from two readings of an otherwise idle host and its ``read_facts``."""
    cpu, memory, load = host["cpu"], host["memory"], host["load_average"]
    assert isinstance(cpu, Mapping) and isinstance(memory, Mapping) and isinstance(load, list)
    warnings = []
    busy, stolen = compute_utilisation(before, after), compute_steal(before, after)
    if busy > NOISY_UTILISATION:
        warnings.append(f"the processors are {busy:.0%} busy before anything has been started")
    if load[0] > NOISY_LOAD_PER_CPU * cpu["processors"]:
        warnings.append(f"the load average is {load[0]:.2f} on {cpu['processors']} processors: something ran just now")
    if stolen > NOISY_STEAL:
        warnings.append(f"the hypervisor below gives {stolen:.1%} of the processors' time to others (steal)")
    if cpu["governor"] not in (None, "performance"):
        warnings.append(f"the frequency governor is {cpu['governor']}, so the clock follows the load")
    if memory["swap_used_bytes"]:
        warnings.append(f"{memory['swap_used_bytes'] >> 20} MiB are swapped out: memory figures miss them")
    if memory["ksm"] == "1":
        warnings.append("KSM merges pages in the background: it uses CPU time and lowers PSS as time goes by")
    return tuple(warnings)
