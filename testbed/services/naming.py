"""Which names a service finds others by, as Compose gives them: its networks decide whom it sees at all.

One that shares another's network has the names of that, too, and finds what that finds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.files import read_bounded
from testbed.compose.model import Attachment, Network, Pairs, Service
from testbed.compose.sharing import HOST, find_owner
from testbed.services.sharing import LOOPBACK

# The network of a service that names none.
DEFAULT = "default"
# In place of an address: the host's, as seen from the services (Compose specification, extra_hosts).
GATEWAY = "host-gateway"
_MOST_BYTES = 1 << 20


def find_hostname(service: Service, services: Sequence[Service]) -> str:
    """Return the name that a service calls itself: its own or, in the network of another or of the host, that one's, as
    docker has it."""
    if service.uts == HOST:
        return os.uname().nodename
    owner = find_owner(service, services)
    shared = os.uname().nodename if owner.network_mode == HOST else owner.name
    return service.hostname or owner.hostname or shared


def make_resolver(service: Service, owner: Service, name_server: str, usual: str = "") -> str:
    """Return the text of a service's resolv.conf(5), with what its file says of it, or that of the ``owner`` of its
    network, or else the ``usual`` text or the ``name_server``, "" for none; empty when there is nothing to be said."""
    if not (service.dns or service.dns_search or service.dns_options):
        service = owner
    if usual and not (service.dns or service.dns_search or service.dns_options):
        return usual
    servers = service.dns or ((name_server,) if name_server else ())
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(service.dns_search)}"] if service.dns_search else []
    lines += [f"options {' '.join(service.dns_options)}"] if service.dns_options else []
    return "".join(f"{line}\n" for line in lines)


def leads_out(service: Service, networks: Sequence[Network]) -> bool:
    """Return whether any of the networks that a service itself is in leads elsewhere."""
    internal = {network.name for network in networks if network.internal}
    return not service.network_mode and any(one.network not in internal for one in list_networks(service))


def list_networks(service: Service) -> tuple[Attachment, ...]:
    """Return the networks that a service is in."""
    return service.networks or (Attachment(DEFAULT),)


def list_hosts(service: Service, services: Sequence[Service], addresses: Mapping[str, str], gateway: str) -> Pairs:
    """Return the names that a service finds, each once with its address (a service without a network, or in the
    host's, has none in ``addresses``): its own, those that its file adds, those of links, then the names and aliases of
    all services that share a network with it. From the host's network, all are found."""
    owner = find_owner(service, services)
    own, address = find_hostname(service, services), addresses.get(service.name, LOOPBACK)
    names: dict[str, str] = {own: address}
    if service.domainname:
        names[f"{own}.{service.domainname}"] = address
    for name, address in (*service.hosts, *owner.hosts):
        names.setdefault(name, gateway if address == GATEWAY else address)
    for linked, name in (*service.links, *owner.links):
        if linked in addresses:
            names.setdefault(name, addresses[linked])
    everywhere = owner.network_mode == HOST
    seen = {attachment.network for attachment in list_networks(owner)}
    for other in services if everywhere or service.name in addresses else ():
        theirs = find_owner(other, services)
        shared = [one for one in list_networks(theirs) if everywhere or one.network in seen]
        if other.name in addresses and shared:
            names.setdefault(other.name, addresses[other.name])
            for alias in (alias for attachment in shared for alias in attachment.aliases if other is theirs):
                names.setdefault(alias, addresses[other.name])
    return tuple(names.items())


def read_hosts(file: Path = Path("/etc/hosts")) -> Pairs:
    """Return the names that a host finds by a hosts(5), each with its address, but for the loopback's own. Raises
    UsageError when that cannot be read."""
    lines = read_bounded(file, _MOST_BYTES).decode(errors="replace").splitlines() if file.exists() else []
    entries = [line.partition("#")[0].split() for line in lines]
    pairs = [(name, address) for address, *names in filter(None, entries) for name in names]
    return tuple(pair for pair in pairs if pair != ("localhost", LOOPBACK))


def read_resolver(file: Path = Path("/etc/resolv.conf")) -> str:
    """Return the text of a host's resolv.conf(5). Raises UsageError when that cannot be read."""
    return read_bounded(file, _MOST_BYTES).decode(errors="replace") if file.exists() else ""
