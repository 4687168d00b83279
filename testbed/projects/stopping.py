"""Asks the services of a project to end, in the order in which they may: those that others depend on come last."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM

from runtime.atomic import replace_file
from testbed.platforms.protocol import Concluding, Instance, Platform, Reachable

# Compose specification, "stop_grace_period" and "stop_signal", where nothing else is said.
GRACE_S, STOP_SIGNAL = 10.0, SIGTERM
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
    platform: Platform, instances: Mapping[str, Instance], needed: Mapping[str, Sequence[str]], grace_s: float
) -> None:
    """Signal the services, ``instances`` by name, and wait for each as long as it may take.

    A guest cannot be asked: what runs in it is ended with its machine.
    """
    if not isinstance(platform, Reachable) or not isinstance(platform, Concluding):
        return
    for group in group_by_end(needed):
        deadline_s = time.monotonic() + grace_s
        for name in group:
            platform.send_signal(instances[name], STOP_SIGNAL)
        for name in group:
            platform.exit_status(instances[name], max(0.0, deadline_s - time.monotonic()))
