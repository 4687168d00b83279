"""One running copy of the scenario's application on one platform: all its services, from request to ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from types import TracebackType

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError, WorkloadError
from testbed.compose.model import Service
from testbed.interruption import Interrupted, defer_signals
from testbed.measures import counting, throttling
from testbed.measures.conditions import HEALTHY, is_checked, judge, list_awaited, list_completing
from testbed.measures.context import Surroundings
from testbed.measures.first_processes import FirstProcesses
from testbed.measures.instances import find_targets, make_instances, make_questions, quote_console
from testbed.measures.revival import Revival, list_revivable
from testbed.measures.timeline import Timeline, make_timeline
from testbed.platforms.protocol import (
    Concluding,
    Executing,
    Filled,
    Instance,
    Metered,
    Platform,
    Pooling,
    Signalling,
    Tenants,
    Together,
)
from testbed.sample import Meter
from testbed.sampler.plan import Target
from testbed.scenario.model import Ready
from testbed.services.health import Checks
from testbed.services.probe import Answer, NotReady, Question, ask
from testbed.services.sharing import is_on_host, lends_ports, reach

# How often it is looked whether what a service waits for is so.
_LOOK_S = 0.005


def ready_timeout_s(ready: Ready, platform: Platform) -> float:
    """Return how long an application on that platform may take to be ready, seconds since the request."""
    return platform.patience * (ready.timeout_vm_s if platform.virtual else ready.timeout_s)


class Application:
    """A context manager: within it the application runs and has been ready; ``timeline`` says since when.

    Entering starts the services in dependency order, each once what it depends on is as it has to be, and waits;
    leaving stops them in reverse, as does an error or an interruption in the middle of a start. Raises WorkloadError,
    with the last lines of every console, when the application is not ready in time or one of its processes ends, but
    for those that ``may_complete``, as those that others wait for to complete: they may end with status 0. One that
    ``asks_health`` asks each service for that by the command of its file, where a platform can run one, until it is
    left (``checks``); otherwise a service is healthy when its ports are open. With ``farewell`` its services end one by
    one, also where they are in one machine: it is called with those that have begun when somebody interrupts the start,
    before they are stopped. ``tenants`` are in its machine, on a platform that is Hosting. ``addresses`` are by
    service; one without a network has none. ``filled`` is what those of its instances took, by name, that were made
    beforehand.
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
        farewell: Callable[[Collection[str]], None] | None = None,
        tenants: Tenants | None = None,
    ) -> None:
        self._context = context
        self._platform = platform
        completing = list_completing(context.scenario.services)
        self._may_complete = {*may_complete, *completing}
        may_ask = isinstance(platform, Executing) and platform.executes
        self.checks = Checks(self._execute) if asks_health and may_ask else None
        self._started: list[Instance] = []
        self._timeout_s = ready_timeout_s(context.settings.ready, platform)
        self._first_processes = FirstProcesses(platform, self._timeout_s, self._begin_checks)
        self._requested_ns = 0
        self._farewell = farewell
        revivable = list_revivable(platform, context.scenario.services) if farewell else frozenset()
        self._revival = Revival(
            platform,
            context.scenario.services,
            self._started,
            revivable,
            status=self.status,
            begin=self._begin,
            note=self._check_again,
        )
        self._undo = ExitStack()
        self._timeline: Timeline | None = None
        self.filled: dict[str, Filled] = {}
        self._mounted = ExitStack()
        self.instances = make_instances(
            context,
            number,
            label,
            self._mounted.enter_context(context.mounts(label)),
            shared=platform.shared,
            one_address=platform.one_address,
            tenants=tenants,
            leaving=[one.name for one in context.scenario.services] if farewell else completing,
            stays=bool(revivable),
        )
        self._instance_of = {service: instance for instance in self.instances for service in instance.specs}
        specs = {service: instance.specs[service] for service, instance in self._instance_of.items()}
        own = {service: str(spec.link.address.ip) for service, spec in specs.items() if spec.link}
        self.addresses = reach(context.scenario.services, own)

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
            self._requested_ns = time.monotonic_ns()
            if self.checks is not None:
                undo.callback(self.checks.close)
            starting = undo.enter_context(ExitStack())
            undo.push(self._part)
            for instance in self.instances:
                self._start(instance, starting)
                if self.checks is not None or instance.held:
                    self._first_processes.begin(instance)
                self._begin_held(instance)
            self._timeline = self._wait(before)
            cgroups = tuple(self.cgroups().values())
            self._context.watch.running(cgroups)
            undo.callback(self._context.watch.stopping, cgroups)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _start(self, instance: Instance, undo: ExitStack) -> None:
        """Start an instance once its service may begin; one of several services waits for none."""
        if not self._platform.shared:
            self._await_others(instance.service)
        undo.callback(self._platform.stop, instance)
        with defer_signals():
            self._begin(instance)
            self._started.append(instance)

    def _begin_held(self, instance: Instance) -> None:
        """Let the services of one instance begin that are held, each once it may and the one before it has."""
        for service in instance.held:
            assert isinstance(self._platform, Together)
            self._await_others(service)
            self._platform.begin_service(instance, service)
            self._await_first(service)

    def _await_first(self, service: str) -> None:
        """Wait until the first process of a service runs."""
        while not self._first_processes.seen(service):
            self._watch()
            time.sleep(_LOOK_S)

    def _part(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take leave of the services that have begun, if somebody interrupts their start."""
        if self._farewell is not None and isinstance(error, Interrupted):
            started = [service for instance in self._started for service in instance.specs]
            # What has no kernel to boot has begun when its start returns.
            self._farewell([one for one in started if not self._platform.virtual or self._first_processes.seen(one)])

    def _execute(self, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        """Run a command in a service, as its check does."""
        assert isinstance(self._platform, Executing)
        return self._platform.execute(self._instance_of[service], service, words, timeout_s)

    def _begin_checks(self, name: str) -> None:
        """Check a service whose first process runs, unless that has been begun before."""
        if self.checks is not None and self.checks.state(name) is None:
            service = next(one for one in self._context.scenario.services if one.name == name)
            if service.healthcheck is not None and is_checked(service):
                self.checks.begin(name, service.healthcheck)

    def _await_others(self, name: str) -> None:
        """Wait until what a service depends on is as it has to be. Raises WorkloadError."""
        services = {service.name: service for service in self._context.scenario.services}
        for awaited in list_awaited(services[name]):
            for started in self._started:
                self._first_processes.begin(started)
            service = services[awaited.service]
            if awaited.condition == HEALTHY and (self.checks is None or not is_checked(service)):
                self._ask(self._list_ports(service))
                self._await_first(service.name)  # of one that has no port to ask
                continue
            try:
                while not judge(awaited, self._health(service.name), self._final_status(service.name)):
                    self._watch()
                    if time.monotonic_ns() - self._requested_ns > self._timeout_s * 1e9:
                        raise WorkloadError(f"not ready after {self._timeout_s:g} s: {awaited} is not so")
                    time.sleep(_LOOK_S)
            except WorkloadError as error:
                raise self.failure(error.message.splitlines()[0]) from error

    def _list_ports(self, service: Service) -> tuple[Question, ...]:
        """Return what to ask of a service that is healthy when its ports are open; nothing of one without a network, or
        whose network others share, for those may be theirs, who start later."""
        services = self._context.scenario.services
        address = self.addresses.get(service.name)
        if address is None or lends_ports(service.name, services):
            return ()
        on_host = is_on_host(service, services)
        return tuple(Question(service.name, address, port, on_host=on_host) for port in service.ports)

    def _final_status(self, service: str) -> int | None:
        """Return how a service has ended that is not started again."""
        instance = self._instance_of[service]
        return (
            None
            if self._revival.is_to_come_back(instance) or self._revival.comes_back_within(service)
            else self.status(service)
        )

    def _health(self, service: str) -> str | None:
        return None if self.checks is None else self.checks.state(service)

    def _watch(self) -> None:
        for error in self._first_processes.errors:
            if isinstance(error, WorkloadError):
                raise self.failure(error.message.splitlines()[0]) from error
            raise error
        for instance in self.revive():
            self._first_processes.begin_again(instance)
        self.check_alive(starting=True)

    def _ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        try:
            return ask(
                questions,
                requested_ns=self._requested_ns,
                timeout_s=self._timeout_s,
                may_ask=self._first_processes.seen,
                watch=self._watch,
                open_socket=self._context.addresses.open_socket,
            )
        except NotReady as error:
            raise self.failure(f"not ready after {self._timeout_s:g} s: {error}{self._revival.tell()}") from error

    def _wait(self, before: counting.Tally | None) -> Timeline:
        ready = self._context.settings.ready
        complete = {name for name in self._instance_of if self._is_complete(name)}
        asked = make_questions(self._context.scenario, ready, self.addresses, complete)
        for instance in self.instances:
            self._first_processes.begin(instance)
        answers = self._ask(asked)
        phases = self._first_processes.phases
        while len(phases) < len(self._context.scenario.services):  # services that have no port to ask
            self._watch()
            time.sleep(0.001)
        counted = before, counting.read(self._platform, self.instances)
        by_service = {service: phases[service] for service in self._instance_of}
        return make_timeline(self._requested_ns, by_service, asked, answers, throttling.read(self.parts()), counted)

    def revive(self) -> list[Instance]:
        """Start each instance again that is to be, as ``Revival.revive`` does; return those."""
        return self._revival.revive()

    def _check_again(self, service: str) -> None:
        if self.checks is not None:
            self.checks.begin_again(service)

    def _begin(self, instance: Instance) -> None:
        """Start an instance. Raises WorkloadError that says so when one whose namespaces it shares has ended."""
        try:
            with defer_signals():
                self._platform.start(instance)
        except TestbedError:
            if not self._revival.has_lenders(instance):
                self.check_alive()
            raise

    def check_alive(self, *, starting: bool = False) -> None:
        """Raise WorkloadError when the first process of a service has ended; of an application that is ``starting``,
        unless it is to be started again."""
        for instance in self._started:
            if starting and self._revival.is_to_come_back(instance):
                continue
            if not self._platform.alive(instance) and not all(map(self._is_complete, instance.specs)):
                ending = self._platform.ending(instance)
                what = f"the first process of {' or '.join(instance.specs)} has ended"
                raise self.failure(f"{what}: {ending}" if ending else what)
            for service in instance.leaving:
                if starting and self._revival.comes_back_within(service):
                    continue
                if (status := self.status(service)) is not None and not self._is_complete(service):
                    raise self.failure(f"the first process of {service} has ended: exit status {status}")

    def _is_complete(self, service: str) -> bool:
        """Return whether a service has ended well that may end."""
        return service in self._may_complete and self.status(service) == 0

    def status(self, service: str, timeout_s: float = 0) -> int | None:
        """Return how a service has ended (128 + n for signal n), waiting for so long; None if it has not, or nobody
        knows."""
        instance = self._instance_of[service]
        if self._platform.shared and isinstance(self._platform, Together):
            return self._platform.service_status(instance, service, timeout_s)
        return self._platform.exit_status(instance, timeout_s) if isinstance(self._platform, Concluding) else None

    def failure(self, what: str) -> WorkloadError:
        """Return the error that says what happened to this application, with the last lines of its consoles."""
        message = f"{self._context.scenario.name} on {self._platform.name}: {what}"
        return WorkloadError(message, "\n  ".join(quote_console(instance) for instance in self._started))

    def meters(self) -> dict[str, Meter]:
        """Return what counts for each instance, by the instance's name: its cgroup, or what has it where none has."""
        platform = self._platform
        if not isinstance(platform, Metered):
            return dict(self.cgroups())
        return {instance.name: platform.meter(instance) for instance in self.instances}

    def parts(self) -> dict[str, Cgroup]:
        """Return the cgroup of each instance, by its part of the application; none where no cgroup has them."""
        cgroups = self.cgroups()
        return {throttling.name_part(one): cgroups[one.name] for one in self.instances if one.name in cgroups}

    @property
    def signals(self) -> bool:
        """Whether services can be signalled on this platform."""
        return isinstance(self._platform, Signalling) and self._platform.signals

    def send_signal(self, service: str, number: int) -> None:
        """Signal a service's first process. Raises TestbedError when nobody can be told."""
        assert isinstance(self._platform, Signalling)
        self._platform.send_signal(self._instance_of[service], service, number)

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
