"""What follows from the namespaces that services share with each other, or have from the host.

The host's network is the host's own where an application is up. In a run that measures, the lab stands for it: load and
network stay in namespaces that the run has made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from testbed.compose.model import Pairs, Service
from testbed.compose.sharing import HOST, find_lender, find_owner

LOOPBACK = "127.0.0.1"
# The kinds of namespaces, as the OCI configuration has them, by the model's fields.
KINDS: Mapping[str, str] = MappingProxyType(
    {"network_mode": "network", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
)


def list_shared(service: Service, host_path: str) -> Pairs:
    """Return the kinds of namespaces that a service shares, each with whose they are (``runtime.spec.Spec``); the
    host's network is at ``host_path``, or the caller's."""
    shared = []
    for key, kind in KINDS.items():
        if getattr(service, key) == HOST:
            shared.append((kind, host_path if kind == "network" else ""))
        elif lender := find_lender(service, key):
            shared.append((kind, lender))
    return tuple(shared)


def is_on_host(service: Service, services: Sequence[Service]) -> bool:
    """Return whether a service is in the network of the host, by itself or with another."""
    return find_owner(service, services).network_mode == HOST


def reach(services: Sequence[Service], own: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses at which services are asked, by name: ``own`` ones, those of the services whose network they
    share, and the loopback's in the network of the host. One without a network has none."""
    at = {}
    for service in services:
        owner = find_owner(service, services)
        address = LOOPBACK if owner.network_mode == HOST else own.get(owner.name)
        if address is not None:
            at[service.name] = address
    return at


def lends_ports(name: str, services: Sequence[Service]) -> bool:
    """Return whether others may listen at the ports of a service, whose network they share."""
    return any(one.name != name and find_owner(one, services).name == name for one in services)


def list_lines(services: Sequence[Service], *, measured: bool) -> tuple[str, ...]:
    """Return a line for each service in the host's network, with what that is."""
    if measured:
        what = "the run's own network, in which the load is, too, stands for the host's, which nothing reaches"
    else:
        what = "it is in this host's network, at its own ports, which are not forwarded"
    return tuple(f"{one.name}: network_mode: {HOST}: {what}" for one in services if one.network_mode == HOST)
