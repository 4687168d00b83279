"""When a start of the application reached what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from runtime.cgroups import Throttling
from testbed.measures import counting
from testbed.services.probe import Answer, Question

Counted = tuple[counting.Tally | None, counting.Tally | None]


class Timeline(Struct, frozen=True):
    """When a start reached what, in nanoseconds of CLOCK_MONOTONIC.

    ``services`` has each service's phases by name, in the order of the scenario: those of the platform (see
    testbed.platforms.protocol.Started) and ``port_open`` when a port of it is known. ``port_open_ns`` and
    ``ready_ns`` are the application's: the ready check's port, and its first right answer or, where that was later,
    when the last other port opened: a client that answers does not make a database ready. ``held_back`` is what the
    quota of processor time took of each instance until then, by its part of the application. ``counted`` are the counts
    just before the request and, as soon as its time is known, when it was ready; None when they could not be read.
    """

    requested_ns: int
    services: Mapping[str, Mapping[str, int]]
    port_open_ns: int
    ready_ns: int
    held_back: Mapping[str, Throttling] = MappingProxyType({})
    counted: Counted = (None, None)


def make_timeline(
    requested_ns: int,
    phases: Mapping[str, Mapping[str, int]],
    asked: Sequence[Question],
    answers: Sequence[Answer],
    held_back: Mapping[str, Throttling],
    counted: Counted,
) -> Timeline:
    """Arrange what the platform told of each service (``phases``) and the ``answers`` to what was ``asked``, the ready
    check first. Without a port to ask, the application is ready when its processes run."""
    opened: dict[str, int] = {}
    for question, answer in zip(asked, answers, strict=True):
        opened[question.service] = max(opened.get(question.service, 0), answer.open_ns)
    services = {service: _add_port(own, opened.get(service)) for service, own in phases.items()}
    if not answers:
        running_ns = max(max(own.values()) for own in services.values())
        return Timeline(requested_ns, services, running_ns, running_ns, held_back, counted)
    ready_ns = max(answers[0].ready_ns, *opened.values())
    return Timeline(requested_ns, services, answers[0].open_ns, ready_ns, held_back, counted)


def _add_port(phases: Mapping[str, int], open_ns: int | None) -> dict[str, int]:
    """Return a service's phases: the platform's and, when a port of it was asked, when its last one opened."""
    return {**phases, **({} if open_ns is None else {"port_open": open_ns})}
