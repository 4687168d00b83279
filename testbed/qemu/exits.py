"""Asks a guest's QEMU for what KVM has counted of it.

KVM's binary statistics (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD) are behind ioctls that only the address space
of QEMU may use, and debugfs, which has them too, is often not mounted, and closed on a host that booted securely. Since
7.1, QEMU reads them for whoever asks on its monitor (query-stats), on this host and on remote ones. A machine's own
statistics (target vm) hold no exits. QEMU asks on a processor's thread: each question costs its guest an exit or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.errors import TestbedError
from testbed import counts
from testbed.qemu.monitor import ask

QUESTION = {
    "target": "vcpu",
    "providers": [{"provider": "kvm", "names": [counts.TOTAL, *counts.REASONS]}],
}


def read_exits(domain: Any) -> Mapping[str, int] | None:
    """Return the exits of a running virDomain since it was started, by reason (testbed.counts), summed over its
    processors; None where QEMU or its kernel does not count them."""
    try:
        answer = ask(domain, "query-stats", QUESTION)
    except TestbedError:  # older than 7.1, or just ended, which others notice and say
        return None
    return parse_exits(answer)


def parse_exits(answer: Any) -> Mapping[str, int] | None:
    """Return the exits of all processors from the answer of query-stats (qapi/stats.json); None without any."""
    processors = [
        counts.sort_exits({one["name"]: one["value"] for one in of["stats"] if isinstance(one["value"], int)})
        for of in answer
        if of.get("provider") == "kvm"
    ]
    known = [one for one in processors if one is not None]
    return counts.add_exits(known) if known and len(known) == len(processors) else None
