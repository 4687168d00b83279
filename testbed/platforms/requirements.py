"""What an application's services ask of platforms: each requirement names what one of them cannot have, before an image
is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.errors import UsageError
from testbed.compose.sharing import is_apart
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.oci import OciPeer
from testbed.platforms.registry import MACHINES
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.spaces import require_spaces
from testbed.qemu.domain import compute_guest_memory, sum_resources
from testbed.qemu.variants import VARIANTS
from testbed.rungs.read import find_rung
from testbed.scenario.model import Service
from testbed.services.kernel import require_sysctls
from testbed.services.mounts import require_init

# The platforms that we do not tell what to mount, and those of them that are told how large /dev/shm is.
_UNTOLD = ("libvirt-lxc", *(name for name, peer in PEERS.items() if not isinstance(peer, OciPeer)), "docker")
_SIZING = ("lxc", "podman", "docker")


def require_services(names: Sequence[str], services: Sequence[Service]) -> None:
    """Raise UsageError for what one of these platforms cannot do for the services, and PrerequisiteError for what this
    host lacks."""
    require_containers(names, services)
    require_memory(names, services)
    require_mounts(names, services)
    require_grants(names, services)
    require_spaces(names, services, MACHINES)
    require_init(services)
    require_sysctls(services)


def require_memory(names: Iterable[str], services: Sequence[Service]) -> None:
    """Raise a UsageError that names every service too small for a machine of one of these platforms.

    It needs no image, so this is called before one is built; ``prepare`` asks the same of its own platform.
    """
    problems: dict[str, str] = {}
    for variant in (MACHINES[name] for name in names if name in MACHINES):
        if variant.inside == "containers":
            continue
        for group in [services] if variant.guest_per == "application" else [[service] for service in services]:
            try:
                needed = sum_resources({service.name: service.resources for service in group})
                compute_guest_memory(needed, " and ".join(service.name for service in group))
            except UsageError as error:
                problems[error.message] = error.hint
    if problems:
        raise UsageError("\n".join(problems), next(iter(problems.values())))


def require_containers(names: Iterable[str], services: Sequence[Service]) -> None:
    """Raise a UsageError that names every key of a service that is of this host, where one of these platforms is a
    machine: it has a kernel of its own."""
    machines = [name for name in names if name in MACHINES]
    hosts = [f"{service.name}.{key}: {what}" for service in services for key, what in service.only_containers]
    if machines and hosts:
        raise UsageError(
            "\n".join(f"{named}: {', '.join(machines)} cannot have that" for named in dict.fromkeys(hosts)),
            "measure containers only, with --platforms container, or leave that out: --file with a !reset",
        )


def require_mounts(names: Iterable[str], services: Sequence[Service]) -> None:
    """Raise a UsageError that names what a service mounts in memory, how large its shared memory is to be, or that its
    root is to be read-only, where one of these platforms is not told that by us, or has the host's."""
    asked = [f"{service.name}: read_only" for service in services if service.read_only]
    asked += [f"{one.name}: tmpfs at {at.target}" for one in services for at in one.mounts if at.kind == "tmpfs"]
    untold = [name for name in names if name in _UNTOLD]
    sized = [f"{service.name}: shm_size" for service in services if service.shm_bytes is not None]
    unsized = [name for name in names if (name in _UNTOLD and name not in _SIZING) or _has_hosts_devices(name)]
    lines = [
        f"{'; '.join(what)}: not on {', '.join(on)}" for what, on in ((asked, untold), (sized, unsized)) if what and on
    ]
    if lines:
        raise UsageError("\n".join(lines), "leave those platforms out")


def require_grants(names: Iterable[str], services: Sequence[Service]) -> None:
    """Raise a UsageError that names what a service sets in its kernel or is granted of it, or that it is to have no
    network, where one of these platforms cannot: its services share that, or it is not told so by us."""
    without = [name for name in names if name not in ("container", "container-pooled") and not _is_alone(name)]
    asked = [f"{one.name}.sysctls" for one in services if one.sysctls]
    asked += [f"{one.name}.devices" for one in services if one.devices]
    asked += [f"{one.name}.network_mode: none" for one in services if one.network_mode == "none"]
    if without and asked:
        raise UsageError(f"{', '.join(asked)}: not on {', '.join(without)}", "leave those platforms out")


def list_not_restarted(names: Iterable[str], services: Sequence[Service], *, measured: bool) -> tuple[str, ...]:
    """Return a line for each platform and service that is not started again there, though its file says so: of several
    in a machine that is measured nobody starts one again, nor, in one that is up, one that shares namespaces."""
    together = [name for name in names if name in VARIANTS and VARIANTS[name].guest_per == "application"]
    return tuple(
        f"{service.name}: not applied on {name}: restart: {service.restart}"
        for name in together
        for service in services
        if service.restart != "no" and (measured or not is_apart(service, services))
    )


def _has_hosts_devices(name: str) -> bool:
    """Return whether a platform is a rung where services see the host's /dev, and so its shared memory."""
    isolation = find_rung(name).isolation if name in RUNGS else None
    return isolation is not None and isolation.devices == "host"


def _is_alone(name: str) -> bool:
    """Return whether a platform is a machine for each service, which our launcher brings up."""
    variant = VARIANTS.get(name)
    return variant is not None and variant.guest_per == "service" and variant.boots_kernel and variant.start == "cold"
