"""The phases of a start: waits for the last, and arranges what a console showed and what the host saw by itself."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.errors import WorkloadError
from testbed.platforms.protocol import Instance, Started
from testbed.qemu.console import Console

# The host's own work: the machine is described, and QEMU has run so far that it connected to its console.
_BEFORE_CREATED = ("defined", "spawned")


def await_first_process(instance: Instance, console: Console, timeout_s: float) -> None:
    """Wait until a container's console shows that its workload was executed. Raises WorkloadError when it never was."""
    if not console.wait_for("first_process", timeout_s):
        raise WorkloadError(
            f"container {instance.name}: {console.explain_delay(timeout_s)}",
            f"what it printed is in {instance.log}; its last lines:\n{console.tail()}",
        )


def arrange_phases(phases: Mapping[str, int], requested_ns: int, created_ns: int) -> Started:
    """Return a start of which the console knows ``phases``; those of single services are named ``service.phase``.

    libvirt's call returns a moment after QEMU runs (``created_ns``), and a fast guest may be ahead of it.
    """
    seen = {phase: at_ns for phase, at_ns in phases.items() if phase not in _BEFORE_CREATED}
    created_ns = min(created_ns, *seen.values())
    own = {"request": requested_ns}
    own |= {phase: min(phases[phase], created_ns) for phase in _BEFORE_CREATED if phase in phases}
    own["created"] = created_ns
    own |= {phase: at_ns for phase, at_ns in seen.items() if "." not in phase}
    services: dict[str, dict[str, int]] = {}
    for name, at_ns in seen.items():
        service, dot, phase = name.rpartition(".")
        if dot:
            services.setdefault(service, {})[phase] = at_ns
            own[phase] = max(own.get(phase, at_ns), at_ns)
    return Started(own, services)
