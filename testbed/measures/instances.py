"""What is started of a copy of the application, what its consoles say, and what is sampled of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile

from runtime.cgroups import Cgroup
from runtime.output import QUOTED_LINES, last_lines
from testbed.lab import find_ports
from testbed.measures.conditions import list_held
from testbed.measures.context import Surroundings
from testbed.platforms.protocol import Instance, Tenants
from testbed.qemu.console import KERNEL_PANIC
from testbed.sampler.plan import Target
from testbed.services.specs import make_specs

# More than what is quoted of a console: a panic's registers are left out.
_LOOKED_AT_LINES = 200


def make_instances(
    context: Surroundings,
    number: int,
    label: str,
    *,
    shared: bool = False,
    one_address: bool = False,
    tenants: Tenants | None = None,
    leaving: Collection[str] = (),
) -> tuple[Instance, ...]:
    """Return what to start for copy ``number`` (from 0) of the application; ``label`` makes names unique.

    One instance for each service or, ``shared``, one for all of them, and for ``tenants``, of which those that are
    ``leaving`` end alone; ``one_address``: they have one interface.
    """
    names = [service.name for service in context.scenario.services]
    links = [context.addresses.link(number, 0 if one_address else index) for index in range(len(names))]
    wanted = dict(zip(names, make_specs(context.scenario, context.images, links, context.mounts), strict=True))
    if shared:
        name, held = f"{label}-{context.scenario.name}", list_held(context.scenario.services)
        apart = tuple(service for service in names if service in leaving)
        return (Instance(name, number, wanted, context.folder.log_path(name), tenants, held, apart),)
    groups = {f"{label}-{service}": {service: spec} for service, spec in wanted.items()}
    logs = {name: context.folder.log_path(name) for name in groups}
    return tuple(Instance(name, number, group, logs[name], tenants) for name, group in groups.items())


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
