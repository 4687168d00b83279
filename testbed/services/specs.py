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
from testbed.scenario.model import Scenario
from testbed.services.kernel import find_devices
from testbed.services.mounts import list_tmpfs
from testbed.services.naming import leads_out, list_hosts, make_resolver
from testbed.services.processes import make_process

# What is mounted in the services that see the host's own files, by service.
Mounts = Mapping[str, tuple[Mount, ...]]
NOTHING_OF_HOST: Mounts = MappingProxyType({})


def mount_nothing(label: str) -> AbstractContextManager[Mounts]:
    """Return what a copy of the application has mounted that sees nothing of the host's: nothing."""
    return nullcontext(NOTHING_OF_HOST)


def make_specs(
    scenario: Scenario, images: Mapping[str, Image], links: Sequence[Link], mounts: Mounts = NOTHING_OF_HOST
) -> tuple[Spec, ...]:
    """Return what each service of a copy of the application runs, in dependency order; ``links`` in the same order,
    of which a service without a network gets none.

    Nothing here depends on the platform, unless ``mounts`` are given: it is the fairness of the comparison. Raises
    UsageError for what an image lacks.
    """
    services = scenario.services
    pairs = list(zip(services, links, strict=True))
    addresses = {service.name: str(link.address.ip) for service, link in pairs if service.network_mode != "none"}
    made = []
    for service, link in pairs:
        if not leads_out(service, scenario.application.networks):
            link = replace(link, gateway=None)
        image = images[service.name]
        gateway = str(link.address.network.network_address + 1)
        made.append(
            Spec(
                make_process(service, image),
                directories(image.layers),
                service.hostname or service.name,
                resources=service.resources,
                link=link if service.name in addresses else None,
                hosts=list_hosts(service, services, addresses, gateway),
                seccomp=service.seccomp,
                mounts=mounts.get(service.name, list_tmpfs(service)),
                read_only=service.read_only,
                sysctls=service.sysctls,
                devices=find_devices(service),
                resolver=make_resolver(service, str(link.gateway or "")),
            )
        )
    return tuple(made)
