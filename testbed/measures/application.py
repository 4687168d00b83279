"""One running copy of the scenario's application on one platform: all its services, from request to ready."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import takewhile
from types import MappingProxyType, TracebackType

from msgspec import Struct

from runtime.cgroups import Cgroup, Throttling
from runtime.errors import UsageError, WorkloadError
from runtime.output import QUOTED_LINES, last_lines
from testbed.interruption import defer_signals
from testbed.lab import find_ports
from testbed.measures import counting, throttling
from testbed.measures.conditions import HEALTHY, is_checked, judge, list_awaited, list_completing, require_apart
from testbed.measures.context import Surroundings
from testbed.measures.first_processes import FirstProcesses
from testbed.measures.restarts import Restarts
from testbed.platforms.protocol import Concluding, Executing, Filled, Instance, Metered, Platform, Pooling, Tenants
from testbed.qemu.console import KERNEL_PANIC
from testbed.sampler.plan import Target
from testbed.scenario.model import Ready, Scenario
from testbed.services.health import Checks
from testbed.services.probe import Answer, NotReady, Question, ask
from testbed.services.specs import NOTHING_OF_HOST, Mounts, make_specs

# More than what is quoted of a console: a panic's registers are left out.
_LOOKED_AT_LINES = 200
# How often it is looked whether what a service waits for is so.
_LOOK_S = 0.005


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
    counted: tuple[counting.Tally | None, counting.Tally | None] = (None, None)


def ready_timeout_s(ready: Ready, platform: Platform) -> float:
    """Return how long an application on that platform may take to be ready, seconds since the request."""
    return platform.patience * (ready.timeout_vm_s if platform.virtual else ready.timeout_s)


def make_instances(
    context: Surroundings,
    number: int,
    label: str,
    mounts: Mounts = NOTHING_OF_HOST,
    *,
    shared: bool = False,
    one_address: bool = False,
    tenants: Tenants | None = None,
) -> tuple[Instance, ...]:
    """Return what to start for copy ``number`` (from 0) of the application; ``label`` makes names unique, ``mounts`` is
    what its services see of the host.

    One instance for each service or, ``shared``, one for all of them, and for ``tenants``; ``one_address``: they have
    one interface.
    """
    names = [service.name for service in context.scenario.services]
    links = [context.addresses.link(number, 0 if one_address else index) for index in range(len(names))]
    wanted = dict(zip(names, make_specs(context.scenario, context.images, links, mounts), strict=True))
    if shared:
        groups = {f"{label}-{context.scenario.name}": wanted}
    else:
        groups = {f"{label}-{service}": {service: spec} for service, spec in wanted.items()}
    logs = {name: context.folder.log_path(name) for name in groups}
    return tuple(Instance(name, number, group, logs[name], tenants) for name, group in groups.items())


def make_questions(
    scenario: Scenario, ready: Ready, addresses: Mapping[str, str], complete: Collection[str] = ()
) -> tuple[Question, ...]:
    """Return what to ask of a starting application: the ready check first, then every other port that is known, but for
    those of services that have done their work; nothing of one without ports."""
    if not ready.service:
        return ()
    if ready.service not in addresses:
        raise UsageError(f"x-testbed.ready: {ready.service} has no network (network_mode: none)", "ask another service")
    check = Question(ready.service, addresses[ready.service], ready.port, ready.path, ready.status, ready.body)
    ports = [
        (service.name, port) for service in scenario.services if service.name not in complete for port in service.ports
    ]
    others = [(name, port) for name, port in ports if (name, port) != (ready.service, ready.port)]
    return (check, *(Question(name, addresses[name], port) for name, port in others))


def quote_console(instance: Instance) -> str:
    """Return the last lines of an instance's console, indented below its name, without the registers of a guest's
    panic."""
    lines = list(takewhile(lambda line: KERNEL_PANIC not in line, last_lines(instance.log, _LOOKED_AT_LINES)))
    shown = lines[-QUOTED_LINES:] or ["(it wrote nothing)"]
    return "\n    ".join([f"{instance.name}, last lines of {instance.log}:", *shown])


class Application:
    """A context manager: within it the application runs and has been ready; ``timeline`` says since when.

    Entering starts the services in dependency order, each once what it depends on is as it has to be, and waits;
    leaving stops them in reverse, as does an error or an interruption in the middle of a start. Raises WorkloadError,
    with the last lines of every console, when the application is not ready in time or one of its processes ends, but
    for those that ``may_complete``, as those that others wait for to complete: they may end with status 0. One that
    ``asks_health`` asks each service for that by the command of its file, where a platform can run one, until it is
    left (``checks``); otherwise a service is healthy when its ports are open. ``tenants`` are in its machine, on a
    platform that is Hosting. ``addresses`` are by service; one without a network has none. ``filled`` is what those of
    its instances took, by name, that were made beforehand.
    """

    def __init__(
        self,
        context: Surroundings,
        platform: Platform,
        number: int,
        label: str,
        may_complete: Collection[str] = (),
        *,
        asks_health: bool = False,
        tenants: Tenants | None = None,
    ) -> None:
        self._context = context
        self._platform = platform
        self._completing = list_completing(context.scenario.services)
        self._may_complete = {*may_complete, *self._completing}
        may_ask = isinstance(platform, Executing) and platform.executes
        self.checks = Checks(self._execute) if asks_health and may_ask else None
        self._started: list[Instance] = []
        self._restarts = Restarts(context.scenario.services)
        if platform.shared:
            require_apart(context.scenario.services, platform.name)
        self._undo = ExitStack()
        self._timeline: Timeline | None = None
        self.filled: dict[str, Filled] = {}
        shared, one_address = platform.shared, platform.one_address
        self._mounted = ExitStack()
        mounts = self._mounted.enter_context(context.mounts(label))
        self.instances = make_instances(
            context, number, label, mounts, shared=shared, one_address=one_address, tenants=tenants
        )
        specs = {service: spec for instance in self.instances for service, spec in instance.specs.items()}
        self.addresses = {service: str(spec.link.address.ip) for service, spec in specs.items() if spec.link}

    @property
    def timeline(self) -> Timeline:
        """The phases of the start; only within the context."""
        assert self._timeline is not None
        return self._timeline

    def __enter__(self) -> Application:
        with ExitStack() as undo:
            undo.enter_context(self._mounted)
            if isinstance(self._platform, Pooling):
                for instance in self.instances:
                    undo.callback(self._platform.stop, instance)
                    with defer_signals():
                        self.filled[instance.name] = self._platform.fill(instance)
            self._context.meet()
            before = counting.read(self._platform, [one for one in self.instances if one.name in self.filled])
            requested_ns = time.monotonic_ns()
            timeout_s = ready_timeout_s(self._context.settings.ready, self._platform)
            first_processes = FirstProcesses(self._platform, timeout_s, self._begin_checks)
            if self.checks is not None:
                undo.callback(self.checks.close)
            for instance in self.instances:
                self._await_others(instance, first_processes, requested_ns, timeout_s)
                undo.callback(self._platform.stop, instance)
                with defer_signals():
                    self._platform.start(instance)
                self._started.append(instance)
                if self.checks is not None:
                    first_processes.begin(instance)
            self._timeline = self._wait(requested_ns, timeout_s, before, first_processes)
            cgroups = tuple(self.cgroups().values())
            self._context.watch.running(cgroups)
            undo.callback(self._context.watch.stopping, cgroups)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _execute(self, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        """Run a command in a service, as its check does."""
        assert isinstance(self._platform, Executing)
        instance = next(one for one in self._started if service in one.specs)
        return self._platform.execute(instance, service, words, timeout_s)

    def _begin_checks(self, instance: Instance) -> None:
        """Check the services of an instance whose first process runs, unless that has been begun before."""
        if self.checks is not None:
            for service in self._context.scenario.services:
                is_new = service.name in instance.specs and self.checks.state(service.name) is None
                if is_new and service.healthcheck is not None and is_checked(service):
                    self.checks.begin(service.name, service.healthcheck)

    def _await_others(
        self, instance: Instance, first_processes: FirstProcesses, requested_ns: int, timeout_s: float
    ) -> None:
        """Wait until what the instance's services depend on is as it has to be. Raises WorkloadError."""
        services = {service.name: service for service in self._context.scenario.services}
        for awaited in (one for name in instance.specs for one in list_awaited(services[name])):
            for started in self._started:
                first_processes.begin(started)
            service = services[awaited.service]
            if awaited.condition == HEALTHY and (self.checks is None or not is_checked(service)):
                questions = [Question(service.name, self.addresses[service.name], port) for port in service.ports]
                self._ask(questions, first_processes, requested_ns, timeout_s)
                while not first_processes.seen(service.name):  # one that has no port to ask
                    self._watch(first_processes)
                    time.sleep(_LOOK_S)
                continue
            started = next(one for one in self._started if service.name in one.specs)
            try:
                while not judge(awaited, self._health(service.name), self._final_status(started)):
                    self._watch(first_processes)
                    if time.monotonic_ns() - requested_ns > timeout_s * 1e9:
                        raise WorkloadError(f"not ready after {timeout_s:g} s: {awaited} is not so")
                    time.sleep(_LOOK_S)
            except WorkloadError as error:
                raise self.failure(error.message.splitlines()[0]) from error

    def _final_status(self, instance: Instance) -> int | None:
        """Return how a workload has ended that is not started again."""
        return None if self._is_to_be_revived(instance) else self._status(instance)

    def _health(self, service: str) -> str | None:
        return None if self.checks is None else self.checks.state(service)

    def _watch(self, first_processes: FirstProcesses) -> None:
        for error in first_processes.errors:
            if isinstance(error, WorkloadError):
                raise self.failure(error.message.splitlines()[0]) from error
            raise error
        for instance in self.revive():
            first_processes.begin_again(instance)
        self.check_alive(starting=True)

    def _ask(
        self,
        questions: Sequence[Question],
        first_processes: FirstProcesses,
        requested_ns: int,
        timeout_s: float,
    ) -> tuple[Answer, ...]:
        try:
            return ask(
                questions,
                requested_ns=requested_ns,
                timeout_s=timeout_s,
                may_ask=first_processes.seen,
                watch=partial(self._watch, first_processes),
            )
        except NotReady as error:
            raise self.failure(f"not ready after {timeout_s:g} s: {error}") from error

    def _wait(
        self, requested_ns: int, timeout_s: float, before: counting.Tally | None, first_processes: FirstProcesses
    ) -> Timeline:
        ready = self._context.settings.ready
        complete = {name for one in self.instances if self._is_complete(one) for name in one.specs}
        asked = make_questions(self._context.scenario, ready, self.addresses, complete)
        for instance in self.instances:
            first_processes.begin(instance)
        answers = self._ask(asked, first_processes, requested_ns, timeout_s)
        while len(first_processes.phases) < len(self._context.scenario.services):  # services that have no port to ask
            self._watch(first_processes)
            time.sleep(0.001)
        counted = before, counting.read(self._platform, self.instances)
        opened: dict[str, int] = {}
        for question, answer in zip(asked, answers, strict=True):
            opened[question.service] = max(opened.get(question.service, 0), answer.open_ns)
        services = {
            service: _phases(first_processes.phases[service], opened.get(service))
            for instance in self.instances
            for service in instance.specs
        }
        cgroups = self.cgroups()
        held_back = throttling.read(
            {throttling.name_part(one): cgroups[one.name] for one in self.instances if one.name in cgroups}
        )
        if not answers:  # without a port, it is ready when its processes run
            running_ns = max(max(phases.values()) for phases in services.values())
            return Timeline(requested_ns, services, running_ns, running_ns, held_back, counted)
        ready_ns = max(answers[0].ready_ns, *opened.values())
        return Timeline(requested_ns, services, answers[0].open_ns, ready_ns, held_back, counted)

    def revive(self) -> list[Instance]:
        """Start each instance again that has ended, is to be started again and has waited long enough; return those.

        While a copy starts, its services may need that: one ends because another is not ready yet.
        """
        revived = []
        for instance in self._started:
            if self._is_to_be_revived(instance) and self._restarts.is_due(instance.service, time.monotonic()):
                self._platform.stop(instance)
                self._restarts.note(instance.service, time.monotonic())
                with defer_signals():
                    self._platform.start(instance)
                revived.append(instance)
        return revived

    def _is_to_be_revived(self, instance: Instance) -> bool:
        if self._platform.shared or isinstance(self._platform, Pooling) or self._platform.alive(instance):
            return False
        status = self._status(instance)
        return not (status == 0 and instance.service in self._completing) and self._restarts.may(
            instance.service, status
        )

    def check_alive(self, *, starting: bool = False) -> None:
        """Raise WorkloadError when the first process of a service has ended; of an application that is ``starting``,
        unless it is to be started again."""
        for instance in self._started:
            if starting and self._is_to_be_revived(instance):
                continue
            if not self._platform.alive(instance) and not self._is_complete(instance):
                ending = self._platform.ending(instance)
                what = f"the first process of {' or '.join(instance.specs)} has ended"
                raise self.failure(f"{what}: {ending}" if ending else what)

    def _is_complete(self, instance: Instance) -> bool:
        """Return whether an instance has ended well that may end."""
        return self._may_complete.issuperset(instance.specs) and self._status(instance) == 0

    def _status(self, instance: Instance) -> int | None:
        """Return how an instance's workload has ended; None if it has not, or nobody knows."""
        return self._platform.exit_status(instance, 0) if isinstance(self._platform, Concluding) else None

    def failure(self, what: str) -> WorkloadError:
        """Return the error that says what happened to this application, with the last lines of its consoles."""
        message = f"{self._context.scenario.name} on {self._platform.name}: {what}"
        return WorkloadError(message, "\n  ".join(quote_console(instance) for instance in self._started))

    def cgroups(self) -> dict[str, Cgroup]:
        """Return the cgroup of each instance, by the instance's name; none where no cgroup has them."""
        if isinstance(self._platform, Metered):
            return {}
        return {instance.name: self._platform.cgroup(instance) for instance in self.instances}


def list_targets(applications: Sequence[Application]) -> dict[str, Target]:
    """Return what is to be sampled of each instance, by its name: its cgroup and its ports of the lab's bridge."""
    instances = [instance for application in applications for instance in application.instances]
    cgroups = {name: cgroup for application in applications for name, cgroup in application.cgroups().items()}
    return find_targets(instances, cgroups)


def find_targets(instances: Sequence[Instance], cgroups: Mapping[str, Cgroup]) -> dict[str, Target]:
    """Return what is to be sampled of running instances whose cgroups, by name, these are."""
    macs = {spec.link.mac: one.name for one in instances for spec in one.specs.values() if spec.link is not None}
    ports: dict[str, set[str]] = {}
    for mac, port in find_ports(macs).items():
        ports.setdefault(macs[mac], set()).add(port)
    return {name: Target(cgroup, tuple(sorted(ports.get(name, ())))) for name, cgroup in cgroups.items()}


def _phases(platform_phases: Mapping[str, int], open_ns: int | None) -> dict[str, int]:
    """Return a service's phases: the platform's and, when a port of it was asked, when its last one opened."""
    return {**platform_phases, **({} if open_ns is None else {"port_open": open_ns})}
