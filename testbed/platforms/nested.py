"""``vm-containers``: a guest for each copy of the application, in which our runtime runs its services as containers.

The guest is the ``vm`` platform's, with another inside: ``vm_images.plans.container_host`` brings it up, and
``runtime.supervisor`` starts each service as the container platform does, from the same Spec: namespaces, an overlay
of the image's layers, limits by cgroup v2, seccomp, an address of its own on the lab's bridge. Containers of others,
tenants, may be beside them: they share the guest's kernel, and its RAM is the ceiling for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.description import to_json
from runtime.errors import UsageError
from runtime.images.merging import mountable
from runtime.images.model import Image
from runtime.images.store import open_store
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from runtime.spec import Process, Resources, Spec
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.progress import print_progress
from testbed.qemu.disks import Disks
from testbed.qemu.domain import sum_resources
from testbed.scenario.model import Scenario
from vm_images.container_host import INTERPRETER, PACKAGES, ensure_host_image, host_initrd
from vm_images.disk import ensure_layer_disk, layer_name
from vm_images.plans.command import Size, container_command_plan, container_plan
from vm_images.plans.container_host import BRIDGE_INDEX, DESCRIPTION, DEVICES, HELD, LAYERS, ContainerHost
from vm_images.plans.guest import FIRST_PROCESS, serve_commands

# What the system inside needs besides its containers. Measured in a guest of 512 MiB before the first of them, as RAM
# less MemAvailable: 72 MiB, of which the kernel keeps 43 from the start, 9 are the interpreter's own; the rest is room
# for what the kernel does not charge to them.
HOST_MEMORY_BYTES = 96 << 20
# A struct page for each 4 KiB (Documentation/mm/memory-model.rst): 64 bytes.
_RAM_PER_PAGE_TABLE = 64
# In place of the first two bytes of the first container's MAC, so that no two interfaces of a lab have the same.
_CARD, _BRIDGE = "02:01", "02:02"
# No site packages, no environment: every module that is not read is a start that is faster.
_SUPERVISOR = "import sys; from runtime.supervisor import main; sys.exit(main(sys.argv[1:]))"


class _Inside(Struct, frozen=True):
    """The host system's layers, the disk with all layers, and where on it a layer of the store is."""

    host_layers: tuple[str, ...]
    disk: Path
    places: Mapping[str, str]


class _LayerDisk(Disks):
    """The one disk that all guests have: the layers of the system inside and of the services' images, side by side."""

    inside: _Inside | None = None

    def prepare(self, images: Iterable[Image]) -> None:
        given = tuple(images)
        host = ensure_host_image(open_store(), print_progress)
        disk = ensure_layer_disk(self._shared, (host, *given))
        places = {
            str(layer.path): f"{LAYERS}/{layer_name(layer)}" for image in given for layer in mountable(image.layers)
        }
        self.inside = _Inside(tuple(map(layer_name, host.layers)), disk, places)
        self._built.append(disk)


def sum_machine_resources(specs: Mapping[str, Spec], room: Resources | None = None) -> Resources:
    """Return what the machine needs so that each container can have all that its limits allow, and tenants their
    ``room``. Raises UsageError when one has no limit of memory."""
    rooms = {} if room is None else {"tenants": room}
    services = sum_resources({name: spec.resources for name, spec in specs.items()} | rooms)
    assert services.memory_bytes is not None  # all have a limit
    total = HOST_MEMORY_BYTES + services.memory_bytes + services.memory_bytes // _RAM_PER_PAGE_TABLE
    whole_mib = -(-total // (1 << 20)) << 20
    return replace(services, memory_bytes=whole_mib)


def _list_containers(instance: Instance) -> dict[str, Spec]:
    """Return all containers of the machine by name, the application's first."""
    return {**instance.specs, **_list_tenants(instance)}


def _list_tenants(instance: Instance) -> dict[str, Spec]:
    return dict(instance.tenants.specs) if instance.tenants else {}


def _derive_mac(specs: Mapping[str, Spec], first_bytes: str) -> str | None:
    """Return a MAC for an interface that the machine has besides its containers'; None when they have none."""
    link = next(iter(specs.values())).link
    return f"{first_bytes}{link.mac[5:]}" if link else None


class ContainersInVmPlatform(VmPlatform):
    """One guest a copy of the application; each of its containers has the limits and the address of its Spec."""

    @property
    def one_address(self) -> bool:
        return False

    def facts(self) -> Mapping[str, object]:
        return {
            **super().facts(),
            "inside": "containers of our own runtime, on cgroup v2",
            "root": "overlays on tmpfs, over the images' layers on erofs",
            "memory": "the services' limits, and what the system inside needs",
            "host_memory_bytes": HOST_MEMORY_BYTES,
        }

    def _require_size(self, scenario: Scenario) -> None:
        sum_resources({service.name: service.resources for service in scenario.services})  # all have a limit

    def _stored_disks(self, root: Path, owner: str) -> Disks:
        return _LayerDisk(root, self._variant.disk, owner)

    @property
    def _inside(self) -> _Inside:
        disks = self._ready().disks
        assert isinstance(disks, _LayerDisk) and disks.inside is not None  # prepared with the platform
        return disks.inside

    @property
    def disk(self) -> Path:
        """The one disk that all its guests have."""
        return self._inside.disk

    def _disks(self, instance: Instance, undo: ExitStack) -> tuple[Path, ...]:
        return (self.disk,)

    def _resources(self, instance: Instance) -> Resources:
        return sum_machine_resources(instance.specs, instance.tenants.room if instance.tenants else None)

    def _mac(self, instance: Instance) -> str | None:
        return _derive_mac(instance.specs, _CARD)

    def _macs(self, instance: Instance) -> tuple[str, ...]:
        own = [_derive_mac(instance.specs, _CARD), _derive_mac(instance.specs, _BRIDGE)]
        inside = [spec.link.mac for spec in _list_containers(instance).values() if spec.link]
        return tuple(filter(None, [*own, *inside]))

    def tenant_status(self, instance: Instance, tenant: str) -> int | None:
        """Return the exit status of a tenant (128 + n when signal n ended it); None while it is there."""
        return self._running[instance.name].console.left.get(tenant)

    def killed(self, instance: Instance) -> Mapping[str, int]:
        """Return how many processes the guest's kernel has killed for want of memory, by their names."""
        return dict(self._running[instance.name].console.killed)

    def _initrd(self, instance: Instance) -> bytes:
        specs = self._place_all(instance)
        host = ContainerHost(
            layers=self._inside.host_layers,
            args=(INTERPRETER, "-S", "-E", "-c", _SUPERVISOR, DESCRIPTION),
            cwd=PACKAGES,
            hostname="host",
            mac=_derive_mac(specs, _BRIDGE),
            description=to_json(
                specs,
                bridge_index=BRIDGE_INDEX,
                tenants=tuple(instance.tenants.specs if instance.tenants else ()),
                held={service: f"{HELD}/{service}" for service in instance.held},
                leaving=instance.leaving,
                stays=instance.stays,
                **self._server(),
            ),
            commands=self.executes,
            held=instance.held,
            mounts=tuple(mount for spec in specs.values() for mount in spec.mounts),
        )
        return host_initrd(self._guest(instance), host)

    def _place_all(self, instance: Instance) -> dict[str, Spec]:
        """Return what all containers run as it is in their guest."""
        places = self._inside.places
        try:
            return {
                name: replace(spec, layers=tuple(places[layer] for layer in spec.layers))
                for name, spec in (self._place(instance) | _list_tenants(instance)).items()
            }
        except KeyError as error:
            raise UsageError(f"start virtual machine {instance.name}: its image was not prepared") from error

    def _plan_again(self, instance: Instance, service: str) -> Plan:
        return container_plan(self._place_all(instance)[service], service, list(instance.specs).index(service))

    def _server(self) -> Mapping[str, object]:
        """Return what the supervisor inside is told of the port for commands."""
        if not self.executes:
            return {}
        return {"server": encode(Plan((serve_commands(DEVICES),))).hex(), "first_process": FIRST_PROCESS}

    def _plan_beside(self, instance: Instance, service: str, process: Process, size: Size | None) -> Plan:
        number = list(instance.specs).index(service)
        return container_command_plan(instance.specs[service], process, service, number, size)
