"""Services in guests, each alone or several together: when each runs, how it is told to begin and to end, and how it
has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence

from runtime.errors import WorkloadError
from testbed.platforms import phases
from testbed.platforms.guest_commands import GuestCommands
from testbed.platforms.protocol import Instance, Started
from testbed.qemu.running import Running
from vm_images.plans.command import signal_plan


def fail(instance: Instance, running: Running, reason: str) -> WorkloadError:
    """Return the error of a guest, with the last lines of its console."""
    hint = f"the whole console is in {instance.log}; its last lines:\n{running.console.tail()}"
    return WorkloadError(f"virtual machine {instance.name}: {reason}", hint)


class GuestServices(GuestCommands):
    """The part of a platform of virtual machines that deals with the services in its running guests."""

    last_phase = "first_process"  # of a start, before its port opens

    @property
    def shared(self) -> bool:
        return self._variant.guest_per == "application"

    @property
    def signals(self) -> bool:
        return self.executes

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, once the console shows the workload's execve. Raises WorkloadError when it never does."""
        own = [f"{service}.first_process" for service in instance.specs] if self.shared else [self.last_phase]
        return self._reached(instance, own, timeout_s)

    def service_started(self, instance: Instance, service: str, timeout_s: float) -> Mapping[str, int]:
        """Return the phases of one of several services, once the console shows its execve. Raises as ``started``."""
        return self._reached(instance, [f"{service}.first_process"], timeout_s).of(service)

    def _reached(self, instance: Instance, wanted: Sequence[str], timeout_s: float) -> Started:
        running = self._running[instance.name]
        console = running.console
        deadline_s = time.monotonic() + timeout_s
        if not all(console.wait_for(phase, deadline_s - time.monotonic()) for phase in wanted):
            end = "ended" if console.ended else f"took longer than {timeout_s:g} s"
            reason = console.failure or f"its start {end} before its first process"
            raise fail(instance, running, reason)
        return phases.arrange_phases(console.phases(), running.requested_ns, running.created_ns)

    def begin_service(self, instance: Instance, service: str) -> None:
        self._running[instance.name].console.send_word()

    def exit_status(self, instance: Instance, timeout_s: float) -> int | None:
        """Return the workload's exit status once the guest has ended; None if it has not, or was stopped."""
        running = self._running.get(instance.name)
        return running.console.exit_status if running and running.console.wait_for_end(timeout_s) else None

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
