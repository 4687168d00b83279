"""Commands in guests: what every platform of virtual machines has of that, where its kind has a port for them."""

from __future__ import annotations

from contextlib import ExitStack

from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.plan.steps import Plan
from runtime.spec import Process
from testbed.platforms.guests import Domains
from testbed.platforms.protocol import Instance
from testbed.qemu.domain import Domain
from testbed.qemu.port import Port
from testbed.qemu.running import Running
from testbed.qemu.variants import Variant
from vm_images.plans.command import Size, aimed_at, command_plan, pod_command_plan


class GuestCommands(Domains[Running]):
    """The part of a platform of the kind ``variant`` that executes commands in its running guests."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._variant = variant

    @property
    def name(self) -> str:
        return self._variant.name

    @property
    def executes(self) -> bool:
        return self._variant.has_port

    def _listen(self, domain: Domain, undo: ExitStack) -> Port | None:
        """Return the host's end of a machine's port, if it has one."""
        if domain.port_socket is None:
            return None
        port = Port(domain.port_socket)
        undo.callback(port.close)
        return port

    def plan_command(self, instance: Instance, service: str, process: Process, size: Size | None = None) -> Plan:
        """Return the plan by which a running guest executes a process beside a service's; with a ``size``, rows and
        columns, in a terminal of its own. Raises UsageError for an empty command."""
        return self._aim(instance, service, self._plan_beside(instance, service, process, size))

    def _plan_beside(self, instance: Instance, service: str, process: Process, size: Size | None) -> Plan:
        """Return the plan of a process beside a service's first one."""
        spec = instance.specs[service]
        if self._variant.guest_per == "service":
            return command_plan(spec, process, size)
        return pod_command_plan(spec, process, service, list(instance.specs).index(service), size)

    def _aim(self, instance: Instance, service: str, plan: Plan) -> Plan:
        """Return a plan for a service as it is now: it may have been started again."""
        running = self._running.get(instance.name)
        again = running.again.get(service) if running is not None else None
        return plan if again is None else aimed_at(plan, list(instance.specs).index(service), again.pid)

    def port(self, instance: Instance) -> Port:
        """Return a running guest's port for commands. Raises UsageError without one, or when it does not run."""
        running = self._running.get(instance.name)
        if running is None or running.port is None or running.console.ended:
            why = "it does not run" if self.executes else f"{self.name} has no port for that"
            raise UsageError(f"execute a command in {instance.name}: {why}")
        return running.port

    def execute(self, instance: Instance, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        port = self.port(instance)
        plan = self.plan_command(instance, service, replace(instance.specs[service].process, args=words))
        return port.run(plan, timeout_s)
