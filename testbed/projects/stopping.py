"""Asks the services of a project to end, in the order in which they may: those that others depend on come last."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.atomic import replace_file
from runtime.processes import parse_signal
from testbed.compose.model import Service
from testbed.platforms.protocol import Concluding, Instance, Platform, Reachable

# Compose specification, "stop_signal", where nothing else is said.
STOP_SIGNAL = "SIGTERM"
MOST_GRACE_S = 3600.0
_GRACE = "grace"


def write_grace(directory: Path, seconds: float) -> None:
    """Leave word for a project's holder how long each service has to end, whatever else is said of that."""
    replace_file(directory / _GRACE, f"{seconds}".encode())


def read_grace(directory: Path) -> float | None:
    """Return what ``write_grace`` has left; None without that."""
    try:
        return float((directory / _GRACE).read_text())
    except (OSError, ValueError):
        return None


def group_by_end(needed: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the services that end at the same time, first those that nobody depends on; ``needed`` has what each
    depends on, which makes no circle."""
    groups: list[list[str]] = []
    left = dict(needed)
    while left:
        wanted = {name for of in left.values() for name in of}
        groups.append([name for name in left if name not in wanted])
        left = {name: of for name, of in left.items() if name in wanted}
    return groups


def stop_gently(
    platform: Platform, instances: Mapping[str, Instance], services: Sequence[Service], grace_s: float | None
) -> None:
    """Signal the services, each as its file says, and wait as long as that says, or ``grace_s``.

    A guest cannot be asked: what runs in it is ended with its machine.
    """
    if not isinstance(platform, Reachable) or not isinstance(platform, Concluding):
        return
    by_name = {service.name: service for service in services}
    for group in group_by_end({one.name: [other.service for other in one.depends_on] for one in services}):
        begun_s = time.monotonic()
        for name in group:
            platform.send_signal(instances[name], parse_signal(by_name[name].stop_signal or STOP_SIGNAL))
        for name in group:
            limit_s = min(by_name[name].stop_grace_s, MOST_GRACE_S) if grace_s is None else grace_s
            platform.exit_status(instances[name], max(0.0, begun_s + limit_s - time.monotonic()))
