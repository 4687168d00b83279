"""Which names a service finds others by, as Compose gives them: its networks decide whom it sees at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.compose.model import Attachment, Network, Pairs, Service

# The network of a service that names none.
DEFAULT = "default"
LOOPBACK = "127.0.0.1"
# In place of an address: the host's, as seen from the services (Compose specification, extra_hosts).
GATEWAY = "host-gateway"


def make_resolver(service: Service, name_server: str) -> str:
    """Return the text of a service's resolv.conf(5), with what its file says of it, or else the ``name_server``, "" for
    none; empty when there is nothing to be said."""
    servers = service.dns or ((name_server,) if name_server else ())
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(service.dns_search)}"] if service.dns_search else []
    lines += [f"options {' '.join(service.dns_options)}"] if service.dns_options else []
    return "".join(f"{line}\n" for line in lines)


def leads_out(service: Service, networks: Sequence[Network]) -> bool:
    """Return whether any of the networks that a service is in leads elsewhere."""
    internal = {network.name for network in networks if network.internal}
    return service.network_mode != "none" and any(one.network not in internal for one in list_networks(service))


def list_networks(service: Service) -> tuple[Attachment, ...]:
    """Return the networks that a service is in."""
    return service.networks or (Attachment(DEFAULT),)


def list_hosts(service: Service, services: Sequence[Service], addresses: Mapping[str, str], gateway: str) -> Pairs:
    """Return the names that a service finds, each once with its address (a service without a network has none in
    ``addresses``): its own, those that its file adds, those of
    links, then the names and aliases of all services that share a network with it."""
    own, address = service.hostname or service.name, addresses.get(service.name, LOOPBACK)
    names: dict[str, str] = {own: address}
    if service.domainname:
        names[f"{own}.{service.domainname}"] = address
    for name, address in service.hosts:
        names.setdefault(name, gateway if address == GATEWAY else address)
    for linked, name in service.links:
        if linked in addresses:
            names.setdefault(name, addresses[linked])
    seen = {attachment.network for attachment in list_networks(service)}
    for other in services:
        shared = [attachment for attachment in list_networks(other) if attachment.network in seen]
        if service.name in addresses and other.name in addresses and shared:
            names.setdefault(other.name, addresses[other.name])
            for alias in (alias for attachment in shared for alias in attachment.aliases):
                names.setdefault(alias, addresses[other.name])
    return tuple(names.items())
