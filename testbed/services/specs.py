"""Makes the Specs of the services of one copy of the application, the same for every platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

from msgspec.structs import replace

from runtime.config.types import Mount
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.spec import Link, Spec
from testbed.compose.sharing import NONE, find_owner
from testbed.scenario.model import Scenario, Service
from testbed.services.kernel import find_devices
from testbed.services.mounts import list_tmpfs
from testbed.services.naming import (
    find_hostname,
    leads_out,
    list_hosts,
    make_resolver,
    read_hosts,
    read_resolver,
)
from testbed.services.processes import make_process
from testbed.services.sharing import LOOPBACK, is_on_host, list_shared, reach

# What is mounted in the services that see the host's own files, by service.
Mounts = Mapping[str, tuple[Mount, ...]]
NOTHING_OF_HOST: Mounts = MappingProxyType({})


def mount_nothing(label: str) -> AbstractContextManager[Mounts]:
    """Return what a copy of the application has mounted that sees nothing of the host's: nothing."""
    return nullcontext(NOTHING_OF_HOST)


def make_specs(
    scenario: Scenario,
    images: Mapping[str, Image],
    links: Sequence[Link],
    mounts: Mounts = NOTHING_OF_HOST,
    host_path: str = "",
) -> tuple[Spec, ...]:
    """Return what each service of a copy of the application runs, in dependency order; ``links`` in the same order,
    of which a service without a network of its own gets none. The host's network, for services that are to be in it, is
    at ``host_path``; "" is the caller's, which stands for it.

    Nothing here depends on the platform, unless ``mounts`` or a path are given: it is the fairness of the comparison.
    Raises UsageError for what an image lacks.
    """
    services = scenario.services
    own = {one.name: link for one, link in zip(services, links, strict=True) if not one.network_mode}
    at = reach(services, {name: str(link.address.ip) for name, link in own.items()})
    addresses = {one.name: at[one.name] for one in services if one.name in at and not is_on_host(one, services)}
    made = []
    for service in services:
        owner, image, link = find_owner(service, services), images[service.name], own.get(service.name)
        if link is not None and not leads_out(service, scenario.application.networks):
            link = replace(link, gateway=None)
        gateway = str(links[0].address.network.network_address + 1)
        hosts = list_hosts(service, services, addresses, gateway)
        resolver = make_resolver(service, owner, _find_name_server(owner, own, scenario))
        if host_path and is_on_host(service, services):  # where the services' addresses are not known
            hosts = (*list_hosts(service, services, {}, LOOPBACK), *read_hosts())
            resolver = make_resolver(service, owner, "", read_resolver())
        made.append(
            Spec(
                make_process(service, image),
                directories(image.layers),
                find_hostname(service, services),
                resources=service.resources,
                link=link,
                hosts=hosts,
                shared=list_shared(service, host_path),
                shm=service.ipc != NONE,
                shm_bytes=service.shm_bytes,
                seccomp=service.seccomp,
                mounts=mounts.get(service.name, list_tmpfs(service)),
                read_only=service.read_only,
                sysctls=service.sysctls,
                devices=find_devices(service),
                resolver=resolver,
            )
        )
    return tuple(made)


def _find_name_server(owner: Service, own: Mapping[str, Link], scenario: Scenario) -> str:
    """Return who is asked for names from the network of a service: the way out, "" without one."""
    if owner.name not in own or not leads_out(owner, scenario.application.networks):
        return ""
    return str(own[owner.name].gateway or "")
