"""Guests that a console tells of: how one that starts, runs or has ended is told by it, on every platform that has
them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from runtime.errors import WorkloadError
from runtime.speed import scale
from testbed.platforms import phases
from testbed.platforms.protocol import Instance, Started
from testbed.qemu.console import Console

_STATUS_TIMEOUT_S = 0.5


class Guest(Protocol):
    """A started guest: its console, and when it was asked for and made."""

    @property
    def console(self) -> Console: ...
    @property
    def requested_ns(self) -> int: ...
    @property
    def created_ns(self) -> int: ...


class Domain(Guest, Protocol):
    """One that is a domain of libvirt's."""

    @property
    def domain(self) -> Any: ...


G = TypeVar("G", bound=Guest)
D = TypeVar("D", bound=Domain)


class Guests(ABC, Generic[G]):
    """The part of a platform of guests that says how they are. ``noun`` is what one is called, ``last_phase`` the last
    of a start before its port opens."""

    noun = "virtual machine"
    last_phase = "first_process"

    def __init__(self) -> None:
        self._running: dict[str, G] = {}

    @property
    def shared(self) -> bool:
        return False

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, once the console shows the workload's execve. Raises WorkloadError when it never does."""
        own = [f"{service}.first_process" for service in instance.specs] if self.shared else [self.last_phase]
        return self._reached(instance, own, timeout_s)

    def _reached(self, instance: Instance, wanted: Sequence[str], timeout_s: float) -> Started:
        running = self._running[instance.name]
        console = running.console
        deadline_s = time.monotonic() + timeout_s
        if not all(console.wait_for(phase, deadline_s - time.monotonic()) for phase in wanted):
            raise self._failed(instance, console.explain_delay(timeout_s))
        return phases.arrange_phases(console.phases(), running.requested_ns, running.created_ns)

    def alive(self, instance: Instance) -> bool:
        """Return whether somebody still holds the console: it ends with the workload, or with the first service that
        ends. Raises WorkloadError when something of the guest was lost, so that it says nothing."""
        running = self._running.get(instance.name)
        if running is None:
            return False
        if lost := self._find_loss(running):
            raise self._failed(instance, lost)
        return not running.console.ended

    def _find_loss(self, running: G) -> str:
        """Return what was lost without which nobody knows how a guest is; empty when nothing was."""
        return running.console.log_failure

    def ending(self, instance: Instance) -> str:
        """Return why it has ended: an emulator's status comes a moment after its console's end."""
        if (running := self._running.get(instance.name)) is None:
            return ""
        deadline_s = time.monotonic() + scale(_STATUS_TIMEOUT_S)
        while not running.console.ending() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return running.console.ending()

    def exit_status(self, instance: Instance, timeout_s: float) -> int | None:
        """Return the workload's exit status once the guest has ended; None if it has not, or was stopped."""
        running = self._running.get(instance.name)
        return running.console.exit_status if running and running.console.wait_for_end(timeout_s) else None

    def _failed(self, instance: Instance, reason: str) -> WorkloadError:
        tail = self._running[instance.name].console.tail()
        hint = f"the whole console is in {instance.log}; its last lines:\n{tail}"
        return WorkloadError(f"{self.noun} {instance.name}: {reason}", hint)


class Domains(Guests[D]):
    """The same of guests that libvirt starts."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The connection to libvirt that all guests have."""

    def _find_loss(self, running: D) -> str:
        if running.domain.connect().isAlive() != 1:
            return f"the connection to libvirt at {self.uri} was lost"
        return super()._find_loss(running)
