"""Asks the services of a project to end, in the order in which they may: those that others depend on come last."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from runtime.atomic import replace_file
from runtime.errors import TestbedError
from runtime.processes import parse_signal
from runtime.speed import scale
from testbed.compose.model import Service
from testbed.measures.application import Application

# Compose specification, "stop_signal", where nothing else is said.
STOP_SIGNAL = "SIGTERM"
MOST_GRACE_S = 3600.0
# In which a process that was killed is gone; in a guest that hangs it never is.
KILL_S = 2.0
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
    application: Application,
    services: Sequence[Service],
    begun: Collection[str],
    grace_s: float | None,
    note: Callable[[], None] = lambda: None,
) -> None:
    """Signal the services that have ``begun``, each as its file says, and wait as long as that says, or ``grace_s``;
    then kill those that are there still. ``note`` is called after each that ends.

    Where nobody in a machine can be told, its services are ended with it.
    """
    if not application.signals:
        return
    for group in group_by_end({one.name: [other.service for other in one.depends_on] for one in services}):
        running = [one for one in services if one.name in group and one.name in begun]
        _end(application, [one for one in running if application.status(one.name) is None], grace_s, note)


def _end(application: Application, group: Sequence[Service], grace_s: float | None, note: Callable[[], None]) -> None:
    begun_s = time.monotonic()
    limits_s = dict.fromkeys((one.name for one in group), 0.0)
    for one in group:
        if _signal(application, one.name, parse_signal(one.stop_signal or STOP_SIGNAL)):
            limits_s[one.name] = min(one.stop_grace_s, MOST_GRACE_S) if grace_s is None else grace_s
    for name, limit_s in limits_s.items():
        if application.status(name, max(0.0, begun_s + limit_s - time.monotonic())) is None:
            _signal(application, name, signal.SIGKILL)
            application.status(name, scale(KILL_S))
        note()


def _signal(application: Application, service: str, number: int) -> bool:
    """Signal a service; False when nobody can be told."""
    try:
        application.send_signal(service, number)
    except TestbedError:
        return False
    return True
