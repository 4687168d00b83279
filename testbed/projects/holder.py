"""The process that holds an application that was started to be used: it starts it, watches it, and stops it.

    python -m testbed.projects.holder       (the order comes through standard input)

It outlives the command and the terminal that started it. Its lease, its lab and all that it has started end with it;
when it is killed, what is left is a dead run's, which `./invoke clean` finds.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import IO

from msgspec import Struct, field, json
from msgspec.structs import replace

from runtime.config.default import DEFAULT_PATH
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.images.model import Image
from runtime.lease import lease
from runtime.plan.steps import Plan
from runtime.processes import start_time
from testbed.duet.messages import Done, Said, describe_error, send
from testbed.host.noise import Watch
from testbed.images import build_images
from testbed.interruption import Interrupted, Undo, raise_on_signals
from testbed.lab import Lab
from testbed.measures.application import Application
from testbed.measures.conditions import list_substituted
from testbed.platforms import registry
from testbed.platforms.protocol import Executing, Instance, Platform, Reachable
from testbed.platforms.requirements import list_not_restarted, require_services
from testbed.platforms.vm import VmPlatform
from testbed.projects import record as records
from testbed.projects.commands import SOCKET, CommandServer, Request
from testbed.projects.forward import Forwarder, held_ports, list_listeners
from testbed.projects.outward import Outward
from testbed.projects.record import Member, Record
from testbed.projects.stopping import MOST_GRACE_S, read_grace, stop_gently
from testbed.projects.volumes import volumes_folder
from testbed.qemu.port import Port
from testbed.scenario.model import NOTHING_ASKED, Asked, Scenario, Settings
from testbed.scenario.model import load as load_scenario
from testbed.services.contents import has_contents
from testbed.services.filling import prepare_places
from testbed.services.mounts import Places, list_unapplied, require_no_shared
from testbed.services.naming import leads_out
from testbed.services.processes import complete
from testbed.services.sharing import list_lines
from testbed.services.specs import NOTHING_OF_HOST, Mounts

_LOOK_S = 0.25
_MACHINES = registry.Machines(commands=True)
# Strangers' applications take their time: a database makes its files at its first start.
LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 120.0, 86400.0


class Order(Struct, frozen=True):
    """What is to be started: the ``scenario`` by name below the folder ``scenarios``, or by path, as ``project``;
    ``asked`` is what was asked for of its compose files, and ``timeout_s`` how long it may take to be ready, None for
    as long as its scenario says, or LEAST_TIMEOUT_S. One that is ``closed`` has no way out to other networks."""

    project: str
    scenario: str
    scenarios: str
    platform: str
    accelerator: str = "auto"
    base: str = ""
    asked: Asked = NOTHING_ASKED
    timeout_s: float | None = None
    closed: bool = False


class _Logs(Struct, frozen=True):
    folder: Path

    def log_path(self, instance: str) -> Path:
        return self.folder / f"{instance}.log"


class _Surroundings(Struct, frozen=True):
    """What is around an application that nobody measures (testbed.measures.context.Surroundings)."""

    scenario: Scenario
    settings: Settings
    images: Mapping[str, Image]
    addresses: Lab
    folder: _Logs
    mounts: Callable[[str], AbstractContextManager[Mounts]]
    watch: Watch = field(default_factory=Watch)
    meet: Callable[[], None] = lambda: None


def hold(order: Order, say: Callable[[str], None], ready: Callable[[], None]) -> None:
    """Start the application and hold it until somebody interrupts; ``ready`` is called once it is.

    Raises UsageError when the project's name is taken, and what building and starting raise. Nothing is left after it.
    """
    scenario = load_scenario(order.scenario, Path(order.scenarios), order.asked)
    hosted = list_lines(scenario.services, measured=False)
    restarts = list_not_restarted([order.platform], scenario.services, measured=False)
    for note in (*scenario.application.notes, *list_unapplied(scenario.services), *hosted, *restarts):
        say(note)
    require_services([order.platform], scenario.services)
    registry.require_programs([order.platform])
    name = records.lease_name(order.project)
    with Undo() as undo:
        directory = undo.enter_context(lease(name))
        pid = os.getpid()
        record = Record(order.project, scenario.name, order.platform, order.platform, pid, start_time(pid), time.time())
        records.write(directory, record)
        lab = Lab(outward=_leads_out(order, scenario, say), lends_host=True)
        platform = registry.create(order.platform, name, directory, lab, order.accelerator, machines=_MACHINES)
        undo.callback(platform.close)
        images, mounts = _prepare(order, scenario, platform, directory, say, undo)
        services = tuple(complete(service, images[service.name]) for service in scenario.services)
        scenario = replace(scenario, services=services)
        ready_at = scenario.settings.ready
        http = ready_at.service, ready_at.port
        with held_ports(scenario.services, http) as of_host:
            listeners = list_listeners(scenario.services, http, say)
        if lab.outward:
            way = undo.enter_context(Outward())
            lab.when_entered(way.connect)
        undo.enter_context(lab)
        logs = _Logs(records.make_logs(directory))
        around = _Surroundings(
            scenario, _with_patience(scenario.settings, order), images, lab, logs, lambda _: nullcontext(mounts)
        )
        may_complete = [one.name for one in scenario.services if one.name != ready_at.service]
        stop = partial(_stop, order.project, platform, scenario, lambda: application)
        application: Application = Application(
            around, platform, 0, order.project, may_complete, asks_health=True, farewell=stop
        )
        specs = {service: spec for instance in application.instances for service, spec in instance.specs.items()}
        records.write_specs(directory, specs)
        published = (*of_host, *(listener.published for listener in listeners))
        members = _first_members(scenario, application)
        grace_s = max(min(one.stop_grace_s, MOST_GRACE_S) for one in scenario.services)
        record = replace(record, label=platform.label, members=members, published=published, grace_s=grace_s)
        records.write(directory, record)
        say(f"starting {', '.join(specs)}")
        with _logs_quoted(application):
            undo.enter_context(application)
        undo.enter_context(Forwarder(listeners, application.addresses))
        undo.callback(stop, [one.name for one in scenario.services])
        if isinstance(platform, VmPlatform) and platform.executes:
            undo.enter_context(CommandServer(directory / SOCKET, partial(_reach, platform, application)))
        observe = partial(_observe, platform, application)
        record = replace(record, ready_s=time.time(), members=observe(record.members))
        records.write(directory, record)
        ready()
        _watch(directory, record, observe)


@contextmanager
def _logs_quoted(application: Application) -> Iterator[None]:
    """Within, an error names no log: they go with what does not start."""
    try:
        yield
    except WorkloadError as error:
        hint = error.hint
        for instance in application.instances:
            hint = hint.replace(f"last lines of {instance.log}", "its last lines")
        raise WorkloadError(error.message, hint) from error


def _with_patience(settings: Settings, order: Order) -> Settings:
    """Return the settings with the time that the application has to be ready."""
    ready = settings.ready
    if order.timeout_s is not None:
        ready = replace(ready, timeout_s=order.timeout_s, timeout_vm_s=order.timeout_s)
    else:
        ready = replace(ready, timeout_s=max(ready.timeout_s, LEAST_TIMEOUT_S))
    return replace(settings, ready=ready)


def _prepare(
    order: Order,
    scenario: Scenario,
    platform: Platform,
    directory: Path,
    say: Callable[[str], None],
    undo: ExitStack,
) -> tuple[dict[str, Image], Mounts]:
    """Build the images, prepare the platform, and return the images with what is mounted in the services: the host's
    own files where those can be, until ``undo``, or else copies of them in the images."""
    services, application = scenario.services, scenario.application
    mounts: Mounts = NOTHING_OF_HOST
    if not isinstance(platform, Reachable) and not (isinstance(platform, Executing) and platform.executes):
        for line in list_substituted(services):
            say(line)
    refusal = registry.find_share_refusal(order.platform) if any(map(has_contents, services)) else ""
    if refusal:
        require_no_shared(services, order.platform, refusal)
        say(f"what is mounted is copied into the images, and nothing comes back from {order.platform}: {refusal}")
        images = build_images(scenario, say, order.base)
    else:
        images = build_images(scenario, say, order.base, contents=False)
        places = Places(volumes_folder(order.project), directory / "files")
        mounts = undo.enter_context(prepare_places(places, services, application, images))
    say(f"preparing {order.platform}")
    platform.prepare(scenario, images)
    return images, mounts


def _leads_out(order: Order, scenario: Scenario, say: Callable[[str], None]) -> bool:
    """Return whether the application gets a way out to other networks: unless nobody wants one, or this host has
    none."""
    networks = scenario.application.networks
    if order.closed or not any(leads_out(service, networks) for service in scenario.services):
        return False
    if shutil.which("slirp4netns", path=DEFAULT_PATH) is None:
        say("nothing leads out to other networks: slirp4netns is not installed (apt-get install slirp4netns)")
        return False
    return True


def _first_members(scenario: Scenario, application: Application) -> tuple[Member, ...]:
    instances = {service: one.name for one in application.instances for service in one.specs}
    return tuple(
        Member(one.name, instances[one.name], application.addresses.get(one.name, ""), one.ports)
        for one in scenario.services
    )


def _watch(directory: Path, record: Record, observe: Callable[[Sequence[Member]], tuple[Member, ...]]) -> None:
    """Keep the record true until a signal ends this."""
    while True:
        time.sleep(_LOOK_S)
        members = observe(record.members)
        if members != record.members:
            record = replace(record, members=members)
            records.write(directory, record)


def _observe(platform: Platform, application: Application, before: Sequence[Member]) -> tuple[Member, ...]:
    """Start services again that are to be, and return all as they are now."""
    with suppress(TestbedError):  # one that cannot be started again stays what it is
        application.revive()
    return _look_at_all(platform, application, before)


def _look_at_all(platform: Platform, application: Application, before: Sequence[Member]) -> tuple[Member, ...]:
    checks = application.checks
    now = (_look(platform, application, member) for member in before)
    return tuple(
        replace(one, health=(checks and one.state == "running" and checks.state(one.name)) or "") for one in now
    )


def _reach(platform: VmPlatform, application: Application, wanted: Request) -> tuple[Port, Plan]:
    """Return the port of the guest in which a command is to be executed, and its plan."""
    instance = next((one for one in application.instances if wanted.service in one.specs), None)
    if instance is None:
        raise UsageError(f"there is no service {wanted.service}")
    return platform.port(instance), platform.plan_command(instance, wanted.service, wanted.process, wanted.size)


def _look(platform: Platform, application: Application, member: Member) -> Member:
    instance = next(one for one in application.instances if one.name == member.instance)
    status = application.status(member.name)
    if status is None and _is_alive(platform, instance):
        pid = platform.first_pid(instance) if isinstance(platform, Reachable) else 0
        if member.state == "running" and member.pid == pid:
            return member
        ticks = start_time(pid) if pid else 0
        return replace(member, state="running", pid=pid, ticks=ticks, since_s=time.time(), exit_status=None)
    if member.state == "exited":
        return member
    return replace(member, state="exited", pid=0, ticks=0, exit_status=status, since_s=time.time())


def _is_alive(platform: Platform, instance: Instance) -> bool:
    try:
        return platform.alive(instance)
    except TestbedError:  # the connection to what runs it was lost
        return False


def _stop(
    name: str, platform: Platform, scenario: Scenario, find: Callable[[], Application], begun: Collection[str]
) -> None:
    """Have the services that have ``begun`` end before their instances are removed, and keep the record true."""
    application, project = find(), records.find(name)
    assert project is not None and project.record is not None  # written before anything is started
    record, directory = project.record, project.directory

    def note() -> None:
        members = _look_at_all(platform, application, record.members)
        records.write(directory, replace(record, members=members))

    stop_gently(application, scenario.services, begun, read_grace(directory), note)


def _detach() -> None:
    """Let go of the terminal of whoever waited: what is still said goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def main() -> None:
    """Hold what the order says; news go to standard output until the application is ready, or until it failed."""
    order = json.decode(sys.stdin.buffer.read(), type=Order)
    news: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def ready() -> None:
        send(news, Done())
        news.close()
        _detach()

    try:
        with raise_on_signals():
            hold(order, lambda line: send(news, Said(line)), ready)
    except (Interrupted, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, TestbedError):
            traceback.print_exc()
        if not news.closed:
            send(news, describe_error(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
