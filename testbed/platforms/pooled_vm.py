"""Virtual machines that wait in a pool: their guest has booted and done all of its plan but the workload's exec.

What a waiting one takes, its guest's kernel and QEMU, is charged to its own cgroup. None is used again after it served.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from runtime.errors import TestbedError, WorkloadError
from runtime.plan.steps import Plan
from testbed.platforms.protocol import Filled, Instance, Started
from testbed.platforms.vm import VmPlatform
from testbed.qemu.accelerator import AUTO
from testbed.qemu.variants import Variant
from vm_images.plans.guest import guest_plan

# Multiplied by how slow the host is.
_BOOT_TIMEOUT_S = 120.0


class PooledVmPlatform(VmPlatform):
    """Machines whose start is their guest's last step. ``fill`` boots them, and finds those that ended meanwhile."""

    def __init__(self, scratch: Path, bridge: str, run_id: str, variant: Variant, accelerator: str = AUTO) -> None:
        super().__init__(scratch, bridge, run_id, variant, accelerator)
        self._took_ns: dict[str, int] = {}
        self._requested_ns: dict[str, int] = {}

    def facts(self) -> Mapping[str, object]:
        start = "the last step of the guest's plan, the exec, of machines that were booted before and serve once"
        return {**super().facts(), "start": start, "start_memory": "charged to its own cgroup while one waits"}

    def fill(self, instance: Instance) -> Filled:
        replaced = 0
        if instance.name in self._took_ns and not self.alive(instance):
            self.stop(instance)
            replaced = 1
        if instance.name not in self._took_ns:
            self._boot(instance)
        return Filled(self._took_ns[instance.name], self.cgroup(instance).memory_bytes(), replaced)

    def _boot(self, instance: Instance) -> None:
        began_ns = time.monotonic_ns()
        with ExitStack() as undo:
            super().start(instance)
            undo.callback(self.stop, instance)
            console = self._running[instance.name].console
            if not console.wait_for("pooled", _BOOT_TIMEOUT_S * self.patience):
                reason = console.failure or "its guest did not get to the workload's exec in time"
                raise WorkloadError(f"fill the pool with {instance.name}: {reason}", f"see {instance.log}")
            undo.pop_all()
        self._took_ns[instance.name] = time.monotonic_ns() - began_ns

    def _guest_plan(self, instance: Instance) -> Plan:
        disk, own = self._variant.disk, self._ready().disks.own
        modules, (spec,) = self._guest(instance).modules(self._variant.bus), self._place(instance).values()
        return guest_plan(spec, modules, file_system=disk.file_system, writable_disk=own, pooled=True)

    def start(self, instance: Instance) -> None:
        """Let the guest that waits execute its workload. Raises WorkloadError when it ended while it waited."""
        requested_ns = time.monotonic_ns()
        if self._took_ns.pop(instance.name, None) is None:
            raise TestbedError(f"start pooled machine {instance.name}: none waits in the pool for it", "fill it first")
        if not self.alive(instance):
            ending = self.ending(instance)
            self.stop(instance)
            what = f"start pooled machine {instance.name}: it ended while it waited in the pool"
            raise WorkloadError(f"{what}: {ending}" if ending else what, f"see {instance.log}")
        self._requested_ns[instance.name] = requested_ns
        self._running[instance.name].console.send_word()

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases; the instance was created before it was requested."""
        first_process_ns = super().started(instance, timeout_s).phases["first_process"]
        requested_ns = self._requested_ns[instance.name]
        return Started({"request": requested_ns, "created": requested_ns, "first_process": first_process_ns})

    def stop(self, instance: Instance) -> None:
        self._took_ns.pop(instance.name, None)
        self._requested_ns.pop(instance.name, None)
        super().stop(instance)

    def close(self) -> None:
        super().close()
        self._took_ns.clear()
