"""Waits for what a service depends on before it is started: that others run, are healthy, or have done their work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from runtime.errors import WorkloadError
from testbed.compose.model import Condition, Service

HEALTHY: Condition = "service_healthy"
COMPLETED: Condition = "service_completed_successfully"


class Awaited(Struct, frozen=True):
    """A ``service`` that another waits for, until the ``condition`` is met."""

    service: str
    condition: Condition

    def __str__(self) -> str:
        return f"{self.service}: {self.condition}"


def list_awaited(service: Service) -> tuple[Awaited, ...]:
    """Return what has to come true before a service is started, besides that others have been started before."""
    return tuple(
        Awaited(one.service, one.condition) for one in service.depends_on if one.condition in (HEALTHY, COMPLETED)
    )


def list_completing(services: Iterable[Service]) -> tuple[str, ...]:
    """Return the services that are to end well, for others wait for that."""
    return tuple(
        dict.fromkeys(one.service for of in services for one in list_awaited(of) if one.condition == COMPLETED)
    )


def list_held(services: Sequence[Service]) -> tuple[str, ...]:
    """Return the services that one instance of all of them does not begin by itself, in their order: the first that has
    to wait for another, and all that come after it."""
    first = next((index for index, service in enumerate(services) if list_awaited(service)), len(services))
    return tuple(service.name for service in services[first:])


def list_substituted(services: Sequence[Service]) -> tuple[str, ...]:
    """Return a line for each service that others wait for to be healthy and whose check is not run in a measured
    start: a command can be run beside a workload in a container, and not in a machine."""
    awaited = {one.service for of in services for one in list_awaited(of) if one.condition == HEALTHY}
    return tuple(
        f"{service.name}: healthy as soon as its ports are open, on every platform: none runs beside what is measured"
        for service in services
        if service.name in awaited and is_checked(service)
    )


def judge(one: Awaited, state: str | None, status: int | None) -> bool:
    """Return whether what is awaited has come true; ``state`` is the service's health and ``status`` how it has ended,
    None where that is not known or not so.

    Raises WorkloadError when it never will.
    """
    if one.condition == COMPLETED:
        if status:
            raise WorkloadError(f"{one.service}, which others wait for, ended with status {status}")
        return status == 0
    if status is not None:
        raise WorkloadError(f"{one.service}, which others wait for to be healthy, ended with status {status}")
    if state == "unhealthy":
        raise WorkloadError(f"{one.service}, which others wait for, is unhealthy")
    return state == "healthy"


def is_checked(service: Service) -> bool:
    """Return whether the file of a service says by which command its health is asked."""
    check = service.healthcheck
    return check is not None and not check.disabled and check.test is not None
