"""When a service that has ended is started again, as its file says (Compose specification, restart)."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.compose.model import Service
from testbed.measures.conditions import list_completing

# Docker's: the wait doubles with each time, and begins anew when the service has run for long enough.
_FIRST_S, _LONGEST_S, _ENOUGH_S = 0.1, 60.0, 10.0


def is_wanted(policy: str, status: int | None, count: int) -> bool:
    """Return whether a service with this policy is started again after it has ended with a status (None: nobody knows)
    and been started again ``count`` times."""
    kind, _, most = policy.partition(":")
    if kind in ("always", "unless-stopped"):
        return True
    return kind == "on-failure" and status != 0 and (not most or count < int(most))


def wait_s(count: int) -> float:
    """Return how long to wait before a service is started again for the ``count``-th time, counted from 0."""
    return min(_FIRST_S * float(1 << min(count, 20)), _LONGEST_S)


class Restarts:
    """How often the services of an application have been started again, and when each that has ended is due."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._completing = list_completing(services)
        self._policies = {service.name: service.restart for service in services}
        self._counts: dict[str, int] = {}
        self._started_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        self._endings: dict[str, list[str]] = {}

    def may(self, service: str, status: int | None) -> bool:
        """Return whether a service that has ended so is to be started again: not one that has ended well as others wait
        for."""
        done = status == 0 and service in self._completing
        return not done and is_wanted(self._policies[service], status, self._counts.get(service, 0))

    def is_due(self, service: str, now_s: float) -> bool:
        """Return whether it is time to do so; the first call after its end begins the wait."""
        if service not in self._due_s:
            if now_s - self._started_s.get(service, now_s) > _ENOUGH_S:
                self._counts.pop(service, None)
            self._due_s[service] = now_s + wait_s(self._counts.get(service, 0))
        return now_s >= self._due_s[service]

    def note(self, service: str, now_s: float, ending: str = "") -> None:
        """Note that it is started again, and how it had ended, as far as that is known."""
        self._endings.setdefault(service, []).append(ending or "nobody knows how")
        del self._due_s[service]
        self._counts[service] = self._counts.get(service, 0) + 1
        self._started_s[service] = now_s

    def tell(self) -> str:
        """Return what has been started again, how often and after which end, for the end of a sentence; "" for none."""
        return "".join(
            f"; {service} has ended {len(endings)} times, the last time with: {endings[-1]}"
            if len(endings) > 1
            else f"; {service} has ended once, with: {endings[0]}"
            for service, endings in self._endings.items()
        )
