"""Starts services of a running application again that have ended, as its file says (Compose specification, restart)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from testbed.compose.model import Service
from testbed.compose.sharing import is_apart, list_borrowers
from testbed.measures.restarts import Restarts
from testbed.platforms.protocol import Instance, Platform, Pooling, Reviving


def list_revivable(platform: Platform, services: Sequence[Service]) -> frozenset[str]:
    """Return the services that a platform starts again within an instance that has others, too."""
    if not (platform.shared and isinstance(platform, Reviving) and platform.revives):
        return frozenset()
    return frozenset(one.name for one in services if one.restart != "no" and is_apart(one, services))


class Revival:
    """Of the instances that have been ``started``, which are to be started again, and does so.

    ``within`` are the services that are started again within an instance of several. ``status`` tells how a service has
    ended, ``begin`` starts an instance, and ``note`` is called with each service that has been started again.
    """

    def __init__(
        self,
        platform: Platform,
        services: Sequence[Service],
        started: Sequence[Instance],
        within: frozenset[str],
        *,
        status: Callable[[str], int | None],
        begin: Callable[[Instance], None],
        note: Callable[[str], None],
    ) -> None:
        self._platform, self._services, self._started, self._within = platform, services, started, within
        self._status, self._begin, self._note = status, begin, note
        self._restarts = Restarts(services)

    def revive(self) -> list[Instance]:
        """Start each instance again that has ended, is to be started again and has waited long enough; return those.

        While a copy starts, its services may need that: one ends because another is not ready yet. With an instance go
        those that share its namespaces: what they had of it has ended. One of these alone waits until its lenders run.
        """
        self._revive_within()
        revived: list[Instance] = []
        for instance in self._started:
            if instance in revived or not self.is_to_come_back(instance) or not self.has_lenders(instance):
                continue
            if not self._restarts.is_due(instance.service, time.monotonic()):
                continue
            self._restarts.note(instance.service, time.monotonic(), self._platform.ending(instance))
            borrowers = {one.name for one in list_borrowers(instance.service, self._services)}
            again = [instance, *(one for one in self._started if one.service in borrowers and self._is_wanted(one))]
            for one in reversed(again):
                self._platform.stop(one)
            for one in again:
                self._begin(one)
                for service in one.specs:
                    self._note(service)
            revived += again
        return revived

    def _revive_within(self) -> None:
        """Start the services again of an instance of several that have ended and waited long enough."""
        for instance in self._started:
            for service in instance.specs:
                if not self.comes_back_within(service) or not self._platform.alive(instance):
                    continue
                if self._restarts.is_due(service, time.monotonic()):
                    assert isinstance(self._platform, Reviving)
                    self._restarts.note(service, time.monotonic(), f"exit status {self._status(service)}")
                    self._platform.revive_service(instance, service)
                    self._note(service)

    def comes_back_within(self, service: str) -> bool:
        """Return whether a service of an instance of several has ended, and is to be started again."""
        if service not in self._within or (status := self._status(service)) is None:
            return False
        return self._restarts.may(service, status)

    def is_to_come_back(self, instance: Instance) -> bool:
        """Return whether an instance of one service has ended, and is to be started again."""
        if self._platform.shared or isinstance(self._platform, Pooling) or self._platform.alive(instance):
            return False
        return self._restarts.may(instance.service, self._status(instance.service))

    def has_lenders(self, instance: Instance) -> bool:
        """Return whether those run whose namespaces an instance shares."""
        lenders = [one for one in self._started if one.name in instance.lenders.values()]
        return all(map(self._platform.alive, lenders))

    def tell(self) -> str:
        """Return what has been started again, as ``Restarts.tell`` does."""
        return self._restarts.tell()

    def _is_wanted(self, instance: Instance) -> bool:
        """Return whether an instance runs, or is to be started again: not one that has done its work."""
        return self._platform.alive(instance) or self.is_to_come_back(instance)
