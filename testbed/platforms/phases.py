"""Arranges what a guest's console showed, and what the host saw by itself, as the phases of its start."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.platforms.protocol import Started

# The host's own work: the machine is described, and QEMU has run so far that it connected to its console.
_BEFORE_CREATED = ("defined", "spawned")


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
