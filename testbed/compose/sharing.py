"""Whose namespaces services share with each other, and that those have them to share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec.structs import replace

from testbed.compose.keys import Notes
from testbed.compose.model import Dependency, Service
from testbed.compose.networking import CONTAINER, SERVICE, SHARED
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

_NUMBER = re.compile("[0-9]{1,9}")
HOST, NONE, PRIVATE = "host", "none", "private"


def find_lender(service: Service, key: str) -> str:
    """Return the name of the service whose namespace a service has by the ``key``; empty when it is no other's."""
    mode: str = getattr(service, key)
    return mode.removeprefix(SERVICE) if mode.startswith(SERVICE) else ""


def find_owner(service: Service, services: Sequence[Service], key: str = "network_mode") -> Service:
    """Return the service whose network, or other namespace of the ``key``, a service has: itself, unless that is
    another's, and so on."""
    by_name = {one.name: one for one in services}
    owner = service
    for _ in services:  # a circle is reported elsewhere
        owner = by_name.get(find_lender(owner, key), owner)
    return owner


def list_borrowers(name: str, services: Sequence[Service]) -> tuple[Service, ...]:
    """Return the services that have a namespace of the one called ``name``, or of such a one."""
    names, found = {name}, []
    for service in services:  # in the order in which they can start
        if not names.isdisjoint(find_lender(service, key) for key in SHARED):
            names.add(service.name)
            found.append(service)
    return tuple(found)


def is_apart(service: Service, services: Sequence[Service]) -> bool:
    """Return whether a service shares no namespace with another, so that it can be started again alone."""
    return not list_borrowers(service.name, services) and not any(find_lender(service, key) for key in SHARED)


def settle_sharing(services: Mapping[str, Service], entries: Mapping[str, Value], notes: Notes) -> dict[str, Service]:
    """Return the services with the names of services in place of those of containers, and with dependencies on those
    whose namespaces they share. ``entries`` are those of all services, also of profiles that are not on.

    A lender that is not there, has several copies, or keeps what is asked for to itself, is a mistake.
    """
    containers = dict(_read_containers(entries))
    settled = {name: _settle(service, services, entries, containers) for name, service in services.items()}
    every = tuple(settled.values())
    for service in every:
        if service.offers and find_owner(service, every).network_mode == NONE:
            notes.read_over("ports", service.name)
            settled[service.name] = replace(service, ports=(), offers=())
    return settled


def _read_containers(entries: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """Yield the names of containers, each with its service's; a service's own name comes last."""
    for service in entries:
        yield service, service
    for service, entry in entries.items():
        named = entry.entries().get("container_name") if entry.is_mapping else None
        if named is not None and not named.is_null:
            yield named.printed(), service


def _settle(
    service: Service, services: Mapping[str, Service], entries: Mapping[str, Value], containers: Mapping[str, str]
) -> Service:
    for key in SHARED:
        kind, _, named = getattr(service, key).partition(":")
        if not named:
            continue
        value = entries[service.name].entries()[key]
        lender = named if kind == SERVICE[:-1] else containers.get(named, "")
        if lender not in services:
            if kind == CONTAINER[:-1] and not lender:
                known = ", ".join(name for name, of in containers.items() if of in services)
                value.report(f"{quote(named)} is no container of this file, and there are no others", f"one of {known}")
            else:
                report_missing(value, lender, services, entries)
            service = replace(service, **{key: ""})
            continue
        _check_lender(value, key, services[lender], entries[lender])
        needed = any(one.service == lender for one in service.depends_on)
        depends_on = service.depends_on if needed else (*service.depends_on, Dependency(lender))
        service = replace(service, depends_on=depends_on, **{key: f"{SERVICE}{lender}"})
    return service


def report_missing(value: Value, name: str, services: Collection[str], others: Collection[str]) -> None:
    """Report that a service is needed that is none of the ``services``: one of the ``others`` is of another profile."""
    if name in others:
        value.report(f"{quote(name)} is of a profile that is not on", "--profile NAME")
    else:
        value.report(f"{quote(name)} is no service of this file", f"one of {', '.join(services)}")


def _check_lender(value: Value, key: str, lender: Service, entry: Value) -> None:
    copies = _count_copies(entry)
    if copies > 1:
        value.report(f"{quote(lender.name)} has {copies} copies, and no service shares with all", "a service of one")
    if key == "ipc" and lender.ipc in (NONE, PRIVATE):
        value.report(f"{quote(lender.name)} keeps its own to itself (ipc: {lender.ipc})", "ipc: shareable there")


def _count_copies(entry: Value) -> int:
    """Return how many containers of a service its file asks for."""
    fields = entry.entries() if entry.is_mapping else {}
    deploy = fields.get("deploy")
    below = deploy.entries() if deploy is not None and deploy.is_mapping else {}
    asked = [one for one in (fields.get("scale"), below.get("replicas")) if one is not None and one.is_text]
    return max((int(text) for text in map(Value.printed, asked) if _NUMBER.fullmatch(text)), default=1)
