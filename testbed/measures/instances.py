"""What is started of a copy of the application: what it is asked, what its consoles say, and what is sampled of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile

from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import UsageError
from runtime.output import QUOTED_LINES, last_lines
from runtime.plan.sharing import is_name
from runtime.spec import Spec
from testbed.lab import find_ports
from testbed.measures.conditions import list_held
from testbed.measures.context import Surroundings
from testbed.platforms.protocol import Instance, Tenants
from testbed.qemu.console import KERNEL_PANIC
from testbed.sampler.plan import Target
from testbed.scenario.model import Ready, Scenario
from testbed.services.probe import Question
from testbed.services.sharing import is_on_host
from testbed.services.specs import NOTHING_OF_HOST, Mounts, make_specs

# More than what is quoted of a console: a panic's registers are left out.
_LOOKED_AT_LINES = 200


def make_instances(
    context: Surroundings,
    number: int,
    label: str,
    mounts: Mounts = NOTHING_OF_HOST,
    *,
    shared: bool = False,
    one_address: bool = False,
    tenants: Tenants | None = None,
    leaving: Collection[str] = (),
    stays: bool = False,
) -> tuple[Instance, ...]:
    """Return what to start for copy ``number`` (from 0) of the application; ``label`` makes names unique, ``mounts`` is
    what its services see of the host.

    One instance for each service or, ``shared``, one for all of them, and for ``tenants``, of which those that are
    ``leaving`` end alone, and which ``stays`` when all have; ``one_address``: they have one interface.
    """
    names = [service.name for service in context.scenario.services]
    links = [context.addresses.link(number, 0 if one_address else index) for index in range(len(names))]
    specs = make_specs(context.scenario, context.images, links, mounts, context.addresses.host_path)
    wanted = dict(zip(names, specs, strict=True))
    if shared:
        name, held = f"{label}-{context.scenario.name}", list_held(context.scenario.services)
        apart = tuple(service for service in names if service in leaving)
        log = context.folder.log_path(name)
        return (Instance(name, number, wanted, log, tenants, held=held, leaving=apart, stays=stays),)
    instances = []
    for service, spec in wanted.items():
        name, lenders = f"{label}-{service}", _name_lenders(label, service, spec)
        log = context.folder.log_path(name)
        instances.append(Instance(name, number, {service: spec}, log, tenants, lenders))
    return tuple(instances)


def _name_lenders(label: str, service: str, spec: Spec) -> Mapping[str, str]:
    """Return the instances of the services that lend namespaces to one, by service."""
    return {of: f"{label}-{of}" for _, of in spec.shared if is_name(of) and of != service}


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


def quote_console(instance: Instance) -> str:
    """Return the last lines of an instance's console, indented below its name, without the registers of a guest's
    panic."""
    lines = list(takewhile(lambda line: KERNEL_PANIC not in line, last_lines(instance.log, _LOOKED_AT_LINES)))
    shown = lines[-QUOTED_LINES:] or ["(it wrote nothing)"]
    return "\n    ".join([f"{instance.name}, last lines of {instance.log}:", *shown])


def find_targets(instances: Sequence[Instance], cgroups: Mapping[str, Cgroup]) -> dict[str, Target]:
    """Return what is to be sampled of running instances whose cgroups, by name, these are."""
    macs = {spec.link.mac: one.name for one in instances for spec in one.specs.values() if spec.link is not None}
    ports: dict[str, set[str]] = {}
    for mac, port in find_ports(macs).items():
        ports.setdefault(macs[mac], set()).add(port)
    return {name: Target(cgroup, tuple(sorted(ports.get(name, ())))) for name, cgroup in cgroups.items()}
