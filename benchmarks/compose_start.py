"""Starts the applications of compose files as containers, for `benchmarks/compose.py --start`.

A file can be started where each of its images can be had: it is in the store, has a substitute (testbed/substitutes),
or is built of a Dockerfile that is there and stands on such images. It counts as started when it is ready as its
scenario says (a connection or an answer at its first published port), all that has a healthcheck is healthy, and
nothing has failed a while later; it is brought down after that, with its volumes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from benchmarks import dockerfile_build
from runtime.builder.dockerfile import parse, read
from runtime.errors import TestbedError, UsageError
from runtime.images.store import Store, open_store
from testbed import leftovers
from testbed.projects.control import bring_down, bring_up
from testbed.projects.holder import Order
from testbed.projects.record import Member, find
from testbed.projects.volumes import remove_volumes
from testbed.scenario.model import Scenario, Service
from testbed.substitutes.table import find_substitute

# What the commands need of this process's environment; all else could be taken for a variable of a file.
_KEPT = ("PATH", "TESTBED_HOME", "LANG")
_END_S, _WHILE_S, _LOOK_S = 3.0, 2.0, 0.1


class Start(Struct, frozen=True):
    """What came of starting a file: the images that cannot be had, or else the seconds until it was ready, or why it
    was not."""

    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def list_missing(store: Store, scenario: Scenario) -> tuple[str, ...]:
    """Return the images of a scenario that cannot be had here, as its services and their Dockerfiles name them."""
    made = {service.image for service in scenario.services if _is_buildable(service)}
    missing: list[str] = []
    for service in scenario.services:
        if _is_buildable(service):
            missing += (one for one in _list_bases(store, service) if one not in made)
        elif service.build is not None:
            missing.append(f"{service.name} (its Dockerfile is not at hand)")
        elif service.image not in made and not _is_there(store, service):
            missing.append(service.image)
    return tuple(dict.fromkeys(missing))


def _list_bases(store: Store, service: Service) -> tuple[str, ...]:
    """Return the images that a service's Dockerfile stands on and that cannot be had; none of one that makes no sense
    or has further contexts, of which the start tells."""
    made = service.build
    if made is None or made.contexts:
        return ()
    try:
        file = parse(made.inline) if made.dockerfile is None else read(made.dockerfile, made.dockerfile.parent)
        return dockerfile_build.list_missing(store, file, made.target, dict(made.args), stands_in=str)
    except UsageError:
        return ()


def _is_buildable(service: Service) -> bool:
    made = service.build
    if made is None:
        return False
    return bool(made.inline) or (made.dockerfile is not None and made.dockerfile.stat().st_size > 0)


def _is_there(store: Store, service: Service) -> bool:
    return store.find(service.image) is not None or find_substitute(service.image) is not None


@contextmanager
def environment(variables: Mapping[str, str], home: Path) -> Iterator[None]:
    """Have nothing but these variables in the environment, with ``home`` as HOME, and what commands need."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({name: before[name] for name in _KEPT if name in before} | {"HOME": str(home), **variables})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_members(project: str) -> tuple[Member, ...]:
    """Return a project's services as they are now. Raises TestbedError when it is gone."""
    there = find(project)
    if there is None or there.record is None or not there.alive:
        raise TestbedError(f"{project} has ended")
    return there.record.members


def describe_failed(members: Iterable[Member]) -> str:
    """Say which services have failed, "" where none has."""
    return "; ".join(
        f"{one.name} has ended with status {one.exit_status}" if one.state == "exited" else f"{one.name} is unhealthy"
        for one in members
        if (one.state == "exited" and one.exit_status != 0) or one.health == "unhealthy"
    )


def wait_healthy(project: str, deadline_s: float) -> str:
    """Wait until all services that have a healthcheck are healthy, and return what is against that."""
    while True:
        members = read_members(project)
        waited_for = [one.name for one in members if one.health == "starting"]
        if (failed := describe_failed(members)) or not waited_for:
            return failed
        if time.monotonic() > deadline_s:
            return f"not healthy in time: {', '.join(waited_for)}"
        time.sleep(_LOOK_S)


def start(file: Path, scenario: Scenario, project: str, variables: Mapping[str, str], limit_s: float) -> Start:
    """Bring up the application of a file, and take it down again. Raises TestbedError when it cannot be removed."""
    if missing := list_missing(open_store(), scenario):
        return Start(missing)
    home = file.parent / f"home-of-{project}"
    home.mkdir()
    order = Order(project, str(file), str(file.parent), "container", timeout_s=limit_s)
    began_s, reason = time.monotonic(), ""
    with environment(variables, home):
        try:
            bring_up(order, lambda line: None, share=True)
            reason = wait_healthy(project, began_s + limit_s)
            took_s = time.monotonic() - began_s
            if not reason:
                time.sleep(_WHILE_S)
                reason = describe_failed(read_members(project))
        except TestbedError as error:
            took_s, reason = time.monotonic() - began_s, str(error)
        finally:
            if (there := find(project)) is not None:
                bring_down(there, _END_S)
            remove_volumes(project)
    left = [str(one) for one in leftovers.find() if project in str(one)]
    if left:
        raise TestbedError(f"{file}: brought down, and left {'; '.join(left)}")
    return Start((), took_s, reason)
