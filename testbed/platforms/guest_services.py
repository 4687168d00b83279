"""Services in guests, each alone or several together: when each runs, how it is told to begin and to end, and how it
has ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from testbed.platforms.guest_commands import GuestCommands
from testbed.platforms.protocol import Instance
from vm_images.plans.command import signal_plan


class GuestServices(GuestCommands):
    """The part of a platform of virtual machines that deals with the services in its running guests."""

    @property
    def shared(self) -> bool:
        return self._variant.guest_per == "application"

    @property
    def signals(self) -> bool:
        return self.executes

    def service_started(self, instance: Instance, service: str, timeout_s: float) -> Mapping[str, int]:
        """Return the phases of one of several services, once the console shows its execve. Raises as ``started``."""
        return self._reached(instance, [f"{service}.first_process"], timeout_s).of(service)

    def begin_service(self, instance: Instance, service: str) -> None:
        self._running[instance.name].console.send_word()

    def service_status(self, instance: Instance, service: str, timeout_s: float) -> int | None:
        if not self.shared:
            return self.exit_status(instance, timeout_s)
        running = self._running.get(instance.name)
        return None if running is None else running.console.wait_for_left(service, timeout_s)

    def send_signal(self, instance: Instance, service: str, number: int) -> None:
        """Have the guest's launcher send it. SIGKILL does not end PID 1: then QEMU is what is killed."""
        if number == signal.SIGKILL and not self.shared:
            self._running[instance.name].kill()
            return
        port = self.port(instance)
        port.begin(signal_plan(list(instance.specs).index(service), number), lambda *_: None)
