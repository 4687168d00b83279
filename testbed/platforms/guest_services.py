"""Services in guests, each alone or several together: when each runs, how it is told to begin and to end, and how it
has ended."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Mapping

from runtime.lines import Lines
from runtime.plan.steps import Plan
from testbed.platforms.guest_commands import GuestCommands
from testbed.platforms.protocol import Instance
from testbed.qemu.port import Outcome
from vm_images.plans.command import again_plan, signal_plan


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
        if running is None:
            return None
        again = running.again.get(service)
        return running.console.wait_for_left(service, timeout_s) if again is None else again.find_status(timeout_s)

    @property
    def revives(self) -> bool:
        return self.executes and self.shared

    @abstractmethod
    def _plan_again(self, instance: Instance, service: str) -> Plan:
        """Return the plan of one of several services."""

    def revive_service(self, instance: Instance, service: str) -> None:
        """Have the guest's launcher start it; what it writes goes to the console, as before."""
        port, running = self.port(instance), self._running[instance.name]
        lines = Lines(running.console.add, f"{service}: " if self._variant.inside == "containers" else "")
        again = Outcome(port, again_plan(self._plan_again(instance, service)), lines.feed)
        try:
            again.wait_started()
            if not again.pid:
                again.wait(0)
        except BaseException:
            port.forget(again.number)
            raise
        running.again[service] = again

    def send_signal(self, instance: Instance, service: str, number: int) -> None:
        """Have the guest's launcher send it. SIGKILL does not end PID 1: then QEMU is what is killed."""
        if number == signal.SIGKILL and not self.shared:
            self._running[instance.name].kill()
            return
        port = self.port(instance)
        plan = signal_plan(list(instance.specs).index(service), number)
        port.begin(self._aim(instance, service, plan), lambda *_: None)
