"""What is to be started of a copy of the application, and what it is asked then to see whether it is ready."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.plan.sharing import is_name
from runtime.spec import Spec
from testbed.measures.context import Surroundings
from testbed.platforms.protocol import Instance, Tenants
from testbed.scenario.model import Ready, Scenario
from testbed.services.probe import Question
from testbed.services.sharing import is_on_host
from testbed.services.specs import make_specs


def make_instances(
    context: Surroundings,
    number: int,
    label: str,
    *,
    shared: bool = False,
    one_address: bool = False,
    tenants: Tenants | None = None,
) -> tuple[Instance, ...]:
    """Return what to start for copy ``number`` (from 0) of the application; ``label`` makes names unique.

    One instance for each service or, ``shared``, one for all of them, and for ``tenants``; ``one_address``: they have
    one interface.
    """
    names = [service.name for service in context.scenario.services]
    links = [context.addresses.link(number, 0 if one_address else index) for index in range(len(names))]
    specs = make_specs(context.scenario, context.images, links, context.mounts, context.addresses.host_path)
    wanted = dict(zip(names, specs, strict=True))
    if shared:
        groups = {f"{label}-{context.scenario.name}": wanted}
    else:
        groups = {f"{label}-{service}": {service: spec} for service, spec in wanted.items()}
    logs = {name: context.folder.log_path(name) for name in groups}
    lenders = {name: {of: f"{label}-{of}" for of in _list_lenders(group)} for name, group in groups.items()}
    return tuple(Instance(name, number, group, logs[name], tenants, lenders[name]) for name, group in groups.items())


def _list_lenders(group: Mapping[str, Spec]) -> tuple[str, ...]:
    """Return the services that lend namespaces to those of an instance and run in another."""
    lenders = (of for spec in group.values() for _, of in spec.shared if is_name(of) and of not in group)
    return tuple(dict.fromkeys(lenders))


def make_questions(
    scenario: Scenario, ready: Ready, addresses: Mapping[str, str], complete: Collection[str] = ()
) -> tuple[Question, ...]:
    """Return what to ask of a starting application: the ready check first, then every other port that is known, but for
    those of services that have done their work; nothing of one without ports."""
    if not ready.service:
        return ()
    if ready.service not in addresses:
        raise UsageError(f"x-testbed.ready: {ready.service} has no network (network_mode: none)", "ask another service")
    services = {service.name: service for service in scenario.services}
    asked = {name: one for name, one in services.items() if name not in complete}
    ports = [(name, port) for name, service in asked.items() for port in service.ports]
    others = [(name, port) for name, port in ports if (name, port) != (ready.service, ready.port)]
    check, *rest = (
        Question(name, addresses[name], port, on_host=is_on_host(services[name], scenario.services))
        for name, port in ((ready.service, ready.port), *others)
    )
    return (replace(check, path=ready.path, status=ready.status, body=ready.body), *rest)
