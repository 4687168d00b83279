"""Which names a service finds others by, as Compose gives them: its networks decide whom it sees at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.compose.model import Attachment, Pairs, Service

# The network of a service that names none.
DEFAULT = "default"
# In place of an address: the host's, as seen from the services (Compose specification, extra_hosts).
GATEWAY = "host-gateway"


def list_networks(service: Service) -> tuple[Attachment, ...]:
    """Return the networks that a service is in."""
    return service.networks or (Attachment(DEFAULT),)


def list_hosts(service: Service, services: Sequence[Service], addresses: Mapping[str, str], gateway: str) -> Pairs:
    """Return the names that a service finds, each once with its address: its own, those that its file adds, those of
    links, then the names and aliases of all services that share a network with it."""
    own = service.hostname or service.name
    names: dict[str, str] = {own: addresses[service.name]}
    if service.domainname:
        names[f"{own}.{service.domainname}"] = addresses[service.name]
    for name, address in service.hosts:
        names.setdefault(name, gateway if address == GATEWAY else address)
    for linked, name in service.links:
        names.setdefault(name, addresses[linked])
    seen = {attachment.network for attachment in list_networks(service)}
    for other in services:
        shared = [attachment for attachment in list_networks(other) if attachment.network in seen]
        if service.network_mode != "none" and shared:
            names.setdefault(other.name, addresses[other.name])
            for alias in (alias for attachment in shared for alias in attachment.aliases):
                names.setdefault(alias, addresses[other.name])
    return tuple(names.items())
