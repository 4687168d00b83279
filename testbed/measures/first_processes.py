"""Waits for the first processes of an application's instances, all at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from testbed.platforms.protocol import Instance, Platform, Together


class FirstProcesses:
    """One thread for each instance, for a platform waits for one. Each calls ``note`` with a service once its first
    process runs. ``phases`` are by service; ``errors`` are what threads raised, for who can undo."""

    def __init__(self, platform: Platform, timeout_s: float, note: Callable[[str], None]) -> None:
        self._platform, self._timeout_s, self._note = platform, timeout_s, note
        self.phases: dict[str, Mapping[str, int]] = {}
        self.errors: list[Exception] = []
        self._begun: set[str] = set()

    def begin(self, instance: Instance) -> None:
        """Wait for a started instance's; harmless when that has begun."""
        if instance.name not in self._begun:
            self._begun.add(instance.name)
            # A daemon: when the start is given up nobody waits for it, and stopping the instance ends it.
            threading.Thread(target=self._await, args=(instance,), daemon=True).start()

    def begin_again(self, instance: Instance) -> None:
        """Wait for it anew, of one that was started again."""
        if instance.name in self._begun:
            self._begun.remove(instance.name)
            for service in instance.specs:
                self.phases.pop(service, None)
            self.begin(instance)

    def _await(self, instance: Instance) -> None:
        try:
            for service, phases in self._reach(instance):
                self.phases[service] = phases
                self._note(service)
        except Exception as error:  # raised again in the thread that can undo
            self.errors.append(error)

    def _reach(self, instance: Instance) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Yield each service as it gets there: those of an instance that are held get there one after the other."""
        if instance.held and isinstance(self._platform, Together):
            for service in instance.specs:
                yield service, self._platform.service_started(instance, service, self._timeout_s)
        else:
            start = self._platform.started(instance, self._timeout_s)
            yield from ((service, start.of(service)) for service in instance.specs)

    def seen(self, service: str) -> bool:
        """Return whether the first process of ``service`` runs."""
        return service in self.phases
