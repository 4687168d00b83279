"""Virtual machines that do not boot: each is a copy of a guest that was booted, warmed up and saved beforehand.

When the platform is prepared, every service is booted once, in a lab of its own, until its port is open and its
processors are idle; nobody has asked it anything yet, so it holds no connection. Then it gives up its address and
is saved (``saved``). A start maps its RAM, loads its devices' state and sends it its identity through its console
(``vm_images.plans.restored``): Debian's kernel has no driver for a generation counter (vmgenid) by which it could see
for itself that it is a copy.

The saved guests belong to the run that made them, with its kernel, its QEMU and its machines, so none can be stale. A
service that connects to others before anyone asks it anything would be saved with connections that no copy has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime import speed
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from runtime.images.model import Image
from runtime.kernel_files import available_bytes
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from runtime.spec import Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu.accelerator import AUTO
from testbed.qemu.domain import Domain, Ram, compute_guest_memory
from testbed.qemu.running import Running
from testbed.qemu.saved import SavedGuest, load, make_ram, resume, save, seal
from testbed.qemu.variants import Variant
from testbed.scenario.model import Scenario
from testbed.services.probe import NotReady, Question, ask
from testbed.services.specs import make_specs
from vm_images.plans.guest import guest_plan
from vm_images.plans.restored import ENTROPY_BYTES, restored_plan, sleep_plan

# What a saved guest is called that is no service's: a copy gets its own name.
_ORIGINAL = "saved"
# Multiplied by how slow the host is.
_BOOT_TIMEOUT_S = 120.0
_SLEEP_TIMEOUT_S = 10.0
_SPAWN_TIMEOUT_S = 10.0
# A guest is idle when its QEMU used less than this part of a processor for so long; a host that is n times slower needs
# n times as much for a guest's timer, up to half a processor, which no guest that still boots stays below.
_IDLE_NS, _IDLE_FRACTION, _IDLE_FRACTION_MOST = 200_000_000, 0.1, 0.5


class Warmed(Struct, frozen=True):
    """What is to be saved: a service's ``spec``, and the ``ports`` that it listens on once it is warm."""

    spec: Spec
    ports: tuple[int, ...] = ()


def _essence(spec: Spec) -> tuple[Spec, bool]:
    """Return what a copy cannot change: all but its names and addresses, and whether it has a network card."""
    return replace(spec, hostname="", hosts=(), link=None), spec.link is not None


def await_idle(cgroup: Cgroup, timeout_s: float) -> None:
    """Wait until what the guest began at its start is done, or else every copy would do the rest of it."""
    deadline_ns = time.monotonic_ns() + round(timeout_s * 1e9)
    idle = min(_IDLE_FRACTION * speed.factor(), _IDLE_FRACTION_MOST)
    used_ns, since_ns = cgroup.cpu_usage_ns(), time.monotonic_ns()
    while since_ns < deadline_ns:
        time.sleep(_IDLE_NS / 1e9)
        now_used_ns, now_ns = cgroup.cpu_usage_ns(), time.monotonic_ns()
        if now_used_ns - used_ns < idle * (now_ns - since_ns):
            return
        used_ns, since_ns = now_used_ns, now_ns


class _Originals(VmPlatform):
    """The guests that are saved: cold ones, whose RAM is a file and whose launcher takes further plans."""

    def __init__(
        self, scratch: Path, run_id: str, variant: Variant, accelerator: str, saved: Mapping[str, SavedGuest]
    ) -> None:
        super().__init__(scratch, BRIDGE, run_id, replace(variant, name=f"{variant.name}-originals"), accelerator)
        self._saved = saved

    def _guest_plan(self, instance: Instance) -> Plan:
        return guest_plan(instance.spec, self._ready().guest.modules(self._variant.bus), served=True)

    def _domain(self, instance: Instance, folder: Path, undo: ExitStack) -> Domain:
        return replace(super()._domain(instance, folder, undo), ram=Ram(self._saved[instance.name].ram, shared=True))

    def warm(self, instance: Instance, ports: Sequence[int]) -> None:
        """Wait until a started guest listens on its ports and is idle. Raises WorkloadError when it never does."""
        timeout_s = _BOOT_TIMEOUT_S * self.patience
        deadline_s = time.monotonic() + timeout_s
        self.started(instance, timeout_s)
        link = instance.spec.link
        asked = [Question(instance.name, str(link.address.ip), port) for port in ports] if link else []

        def watch() -> None:
            if not self.alive(instance):
                raise WorkloadError(f"save {instance.name}: its first process has ended", f"see {instance.log}")

        try:
            ask(
                asked,
                requested_ns=time.monotonic_ns(),
                timeout_s=deadline_s - time.monotonic(),
                may_ask=lambda name: True,
                watch=watch,
            )
        except NotReady as error:
            raise WorkloadError(f"save {instance.name}: {error}", f"see {instance.log}") from error
        await_idle(self.cgroup(instance), deadline_s - time.monotonic())

    def save(self, instance: Instance) -> None:
        """Save a warm guest and end it. Raises WorkloadError when it does not answer, TestbedError for QEMU."""
        running, saved = self._running[instance.name], self._saved[instance.name]
        running.console.send_plan(encode(sleep_plan(instance.spec.link)))
        timeout_s = _SLEEP_TIMEOUT_S * self.patience
        if not running.console.wait_for("asleep", timeout_s):
            reason = running.console.failure or f"it did not answer within {timeout_s:g} s"
            raise WorkloadError(f"save {instance.name}: {reason}", f"see {instance.log}")
        save(running.domain, saved)
        self.stop(instance)
        seal(saved)


class RestoredPlatform(VmPlatform):
    """Copies of saved guests. The saved ones are stored below the run's scratch directory and go with it."""

    last_phase = "identity"

    def __init__(self, scratch: Path, bridge: str, run_id: str, variant: Variant, accelerator: str = AUTO) -> None:
        super().__init__(scratch, bridge, run_id, variant, accelerator)
        self._run_scratch = scratch
        self._saved: dict[tuple[Spec, bool], SavedGuest] = {}
        self._images: tuple[Image, ...] = ()
        self._memory = ExitStack()

    def facts(self) -> Mapping[str, object]:
        stored_bytes = sum(saved.stored_bytes() for saved in self._saved.values())
        return {
            **super().facts(),
            "start": "copies of a saved guest: RAM mapped privately from a file that all share, device state loaded",
            "start_memory": "pages that a copy has not changed are charged to none of the copies; PSS divides them",
            "saved_guests": len(self._saved),
            "saved_bytes": stored_bytes,
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Prepare what every guest needs, then boot and save one guest of each service."""
        super().prepare(scenario, images)
        self.save_services(scenario, images)

    def save_services(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Boot and save one guest of each service, in a lab of their own. Raises as ``save``."""
        with Lab() as lab:
            links = [lab.link(0, index) for index in range(len(scenario.services))]
            services = zip(scenario.services, make_specs(scenario, images, links), strict=True)
            self.save({service.name: Warmed(spec, service.ports) for service, spec in services}, images)

    def prepare_images(self, images: Iterable[Image]) -> None:
        self._images = tuple(images)
        super().prepare_images(self._images)

    def save_for(self, instance: Instance, ports: Sequence[int] = ()) -> None:
        """Save a guest as ``save`` does, of one of the images that it was prepared with."""
        spec = replace(instance.spec, hostname=_ORIGINAL)
        own = [one for one in self._images if tuple(str(layer.path) for layer in one.layers) == spec.layers]
        self.save({instance.name: Warmed(spec, tuple(ports))}, {one.reference: one for one in own})

    def save(self, warmed: Mapping[str, Warmed], images: Mapping[str, Image]) -> None:
        """Boot, warm and save what starts will be copies of, by service. To be called in a lab's network namespace.

        Raises WorkloadError when one does not get warm, PrerequisiteError without space for its RAM.
        """
        folder = self._scratch / "saved"
        folder.mkdir(exist_ok=True)
        sizes = {service: compute_guest_memory(one.spec.resources, service) for service, one in warmed.items()}
        needed_bytes, free_bytes = sum(sizes.values()), available_bytes(Path("/proc/meminfo").read_text())
        if free_bytes < needed_bytes:
            raise PrerequisiteError(
                f"save guests: {needed_bytes >> 20} MiB of memory are needed, {free_bytes >> 20} MiB are available",
                "end other programs",
            )
        saved: dict[str, SavedGuest] = {}
        originals = _Originals(self._run_scratch, self._run_id, self._variant, self._wanted, saved)
        with ExitStack() as undo:
            undo.callback(originals.close)
            originals.prepare_images(images.values())
            started = []
            for service, one in warmed.items():
                name = f"saved-{service}"
                instance = Instance(name, 0, {service: one.spec}, folder / f"{name}.log")
                ram = make_ram(name, sizes[service])
                self._memory.callback(os.close, ram)
                saved[name] = SavedGuest(ram, folder / f"{name}.state")
                originals.start(instance)
                started.append((instance, one.ports))
            for instance, ports in started:
                originals.warm(instance, ports)
            for instance, _ in started:
                originals.save(instance)
                self._saved[_essence(instance.spec)] = saved[instance.name]

    def _domain(self, instance: Instance, folder: Path, undo: ExitStack) -> Domain:
        saved = self._saved.get(_essence(instance.spec))
        if saved is None:
            raise UsageError(f"start virtual machine {instance.name}: no guest that it could be a copy of was saved")
        return replace(super()._domain(instance, folder, undo), kernel=None, ram=Ram(saved.ram, shared=False))

    def _go_on(self, instance: Instance, running: Running) -> None:
        """Load the saved state, let the processors go, and tell the guest who it is."""
        load(running.domain, self._saved[_essence(instance.spec)])
        running.console.stamp("restored")
        resume(running.domain)
        running.console.stamp("first_process")
        if not running.console.wait_for("spawned", _SPAWN_TIMEOUT_S * self.patience):
            raise TestbedError(f"start virtual machine {instance.name}: QEMU did not connect to its console")
        machine_id = running.domain.UUIDString().replace("-", "")
        plan = restored_plan(instance.spec, machine_id, time.time_ns(), os.urandom(ENTROPY_BYTES))
        running.console.send_plan(encode(plan))

    def close(self) -> None:
        super().close()
        self._saved.clear()
        self._memory.close()
