"""Neighbours: what becomes of the application, under the load of its service level, while an instance beside it on the
same platform turns bad; and of the same application alone.

On a platform that takes in containers of others the neighbour is one of those, in the application's own machine; that
has the same room for it when the application is alone.

Every case has an application of its own, started anew: what one neighbour has done to it is not carried into the next.
The application alone is a case like the others, in the same block, and what the others are set against.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from runtime.spec import Spec
from testbed.aliases import find_original
from testbed.levels import LEVELS
from testbed.load.requests import is_expected
from testbed.measures.application import Application, ready_timeout_s
from testbed.measures.context import RunContext
from testbed.measures.instances import find_targets
from testbed.measures.level import SLOW_FRACTION, bound_fraction
from testbed.measures.ramp import RESERVE_BYTES, application_bytes, count_ports
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steps import make_window
from testbed.measures.utilisation import Offer, Window, describe_outcome, make_metrics, offer
from testbed.neighbours.cases import (
    MACHINE_ROOM,
    Case,
    Ceiling,
    choose_resources,
    compute_ceiling,
    find_case,
    find_shared,
)
from testbed.neighbours.ceiling import hold_below, require_headroom
from testbed.neighbours.image import REFERENCE
from testbed.neighbours.neighbour import TENANT_NAME, Control, Neighbour, State, Tenant, make_instance, make_spec
from testbed.platforms.protocol import Hosting, Instance, Platform, Tenants
from testbed.qemu.variants import VARIANTS
from testbed.results import Metric, Outcome, Trial
from testbed.sample import compute_shares, read_host
from testbed.sampler.plan import Target
from testbed.sampler.records import COLUMNS, Usage, summarise_usage, tabulate
from testbed.services.exchange import NoAnswer, fetch
from testbed.temperature import find_temperature

# How long an application may take to answer once more when its neighbour has gone, before it counts as lost.
RECOVERY_S = 10.0
_RETRY_S = 0.1
# What nobody can tell of an application whose neighbour is metered with it.
_PER_REQUEST = ("cpu_per_request", "memory_per_request")


class Beside(Struct, frozen=True):
    """What a neighbour did in the window of a load: what it used (None when it is metered with the application), what
    it says of itself (None when it does not), whether it was still there at the end, and whether it could be ended."""

    used: Usage | None
    state: State | None
    alive: bool
    ended: bool = True


def require_neighbours(platforms: tuple[str, ...]) -> None:
    """Raise UsageError for a platform on which no neighbour can be started, or none be held below a ceiling."""
    for name in map(find_original, platforms):
        if find_temperature(name) != "cold":
            raise UsageError(
                f"neighbours on {name}: it starts warm, from what was saved or made of the application only",
                "measure neighbours on platforms that start cold: container, vm, vm-containers",
            )
        if name != "container" and name not in VARIANTS:
            raise UsageError(
                f"neighbours on {name}: its instances may be elsewhere than in the run's own cgroup, which keeps the"
                " host's reserve",
                "measure neighbours on container, vm, vm-containers or another virtual machine",
            )


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Measure each case of the plan, with an application of its own; one trial a case, which fails by itself.

    Raises PrerequisiteError on a host that would not keep its reserve.
    """
    platform = context.platforms[planned.platform]
    for index, level in enumerate(planned.levels):
        case = find_case(str(level), context.settings.neighbours.kinds)
        try:
            yield _trial(context, platform, planned, case, index)
        except (PrerequisiteError, UsageError):
            raise
        except TestbedError as error:
            context.progress(f"  {case.name}: failed: {error}")
            reason, where = error.message.splitlines()[0], (planned.block, planned.platform, planned.measure)
            parameters = {LEVELS[planned.measure]: case.name}
            yield Trial(planned.trial + index, *where, "failed", reason, parameters, details=error.hint)


def _trial(context: RunContext, platform: Platform, planned: PlannedTrial, case: Case, index: int) -> Trial:
    number = planned.trial + index
    label = f"t{number:03}"
    wanted = context.settings.neighbours
    asked = Offer(wanted.rate_per_s, wanted.window_s, context.arrival_seed(planned.block, 0))
    ports = count_ports(context.scenario, platform)
    ceiling = compute_ceiling(application_bytes(context.scenario), ports, platform.virtual)
    spec = _make_spec(context, platform, case, ceiling, asked) if case.kind else None
    with ExitStack() as undo:
        application = Application(context, platform, 0, label, tenants=_choose_tenants(platform, spec))
        require_headroom(ceiling, read_host().available_bytes, RESERVE_BYTES)
        undo.enter_context(hold_below(_find_run(platform, application.instances[0]), ceiling))
        undo.enter_context(application)
        if spec is not None:
            # Named as no service's instance can be.
            window, beside = _offer_beside(context, platform, application, spec, asked, f"{label}.neighbour")
        else:
            window, beside = offer(context, platform, application, asked), None
        lost = find_loss(context, application, platform.patience * RECOVERY_S)
        killed = platform.killed(application.instances[0]) if isinstance(platform, Hosting) else None
    if lost and beside is not None and not beside.ended:
        lost += "; its neighbour could not be ended"
    outcome, reason = judge(case, window, context.settings.slo.error_fraction, lost)
    ending = f", lost: {lost}" if lost else ""
    context.progress(
        f"  {case.name}: {describe_outcome(window.load)}{ending}{f' ({outcome}: {reason})' if reason else ''}"
    )
    parameters: dict[str, float | str] = {
        LEVELS[planned.measure]: case.name,
        "rate_per_s": asked.rate_per_s,
        "shared": find_shared(platform.virtual, hosted=killed is not None),
        **({"lost": lost} if lost else {}),
    }
    return Trial(
        number,
        planned.block,
        planned.platform,
        planned.measure,
        outcome,
        reason,
        parameters,
        (
            *make_window_metrics(asked.rate_per_s, window, beside),
            *make_victim_metrics(window, context.settings.slo.p99_ms, survived=not lost),
            *(() if killed is None else (Metric("guest_killed", sum(killed.values()), "1"),)),
        ),
        context.folder.write_samples(label, COLUMNS, tabulate(window.rows)),
        histogram=context.folder.write_histogram(label, window.load.latencies, window.load.elapsed_s),
    )


def _find_run(platform: Platform, instance: Instance) -> Cgroup:
    """Return the cgroup that all instances of the run are in."""
    own = platform.cgroup(instance)
    return Cgroup(own.name.rpartition("/")[0], own.hierarchies)


def _make_spec(context: RunContext, platform: Platform, case: Case, ceiling: Ceiling, asked: Offer) -> Spec:
    """Return the neighbour of a case: a container, or a machine."""
    machine = platform.virtual and not isinstance(platform, Hosting)
    return make_spec(
        case.kind,
        context.images[REFERENCE],
        choose_resources(case, machine, os.cpu_count() or 1),
        ceiling,
        context.addresses.link(1, 0),
        context.settings.load.warmup_s + asked.duration_s,
    )


def _choose_tenants(platform: Platform, spec: Spec | None) -> Tenants | None:
    """Return who is in the application's machine besides, and the room for them; None where nobody can be."""
    if not isinstance(platform, Hosting):
        return None
    return Tenants(MACHINE_ROOM, {} if spec is None else {TENANT_NAME: spec})


@contextmanager
def _start_neighbour(
    context: RunContext, platform: Platform, application: Application, spec: Spec, label: str
) -> Iterator[tuple[Control, Mapping[str, Target]]]:
    """Within, a neighbour is there, calm, with what is to be sampled of it: nothing of one in the application's own
    machine, which has started it."""
    timeout_s = ready_timeout_s(context.settings.ready, platform)
    if isinstance(platform, Hosting):
        tenant = Tenant(platform, application.instances[0])
        tenant.wait(timeout_s)
        yield tenant, {}
        return
    instance = make_instance(label, spec, context.folder.log_path(label))
    cgroup = platform.cgroup(instance)
    with Neighbour(platform, instance, timeout_s) as neighbour, ExitStack() as undo:
        context.watch.running((cgroup,))
        undo.callback(context.watch.stopping, (cgroup,))
        targets = find_targets((instance,), {label: cgroup})
        yield neighbour, {name: replace(of, each=False) for name, of in targets.items()}


def _offer_beside(
    context: RunContext, platform: Platform, application: Application, spec: Spec, asked: Offer, label: str
) -> tuple[Window, Beside]:
    """Offer the load while a neighbour is bad, from its warm-up on; then end it."""
    with _start_neighbour(context, platform, application, spec, label) as (neighbour, targets):
        neighbour.go()
        window = offer(context, platform, application, asked, targets)
        used = summarise_usage(window.rows, label) if targets else None
        beside = Beside(used, neighbour.read_state(), neighbour.alive)
        if isinstance(neighbour, Tenant):
            beside = replace(beside, ended=neighbour.end(platform.patience * RECOVERY_S))
    return window, beside


def find_loss(context: RunContext, application: Application, timeout_s: float) -> str:
    """Return what the application was lost by; empty when it has survived: all its processes are there, and its ready
    check is answered within that time."""
    ready = context.settings.ready
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            application.check_alive()
            exchange = fetch(application.addresses[ready.service], ready.port, ready.path, timeout_s)
            problem = "" if is_expected(exchange.status, ready.status) else f"status {exchange.status}"
        except WorkloadError as error:
            return error.message.splitlines()[0]
        except NoAnswer as error:
            problem = str(error)
        if not problem:
            return ""
        if time.monotonic() >= deadline_s:
            return f"its ready check is not answered: {problem}"
        time.sleep(_RETRY_S)


def judge(case: Case, window: Window, error_fraction: float, lost: str) -> tuple[Outcome, str]:
    """Return how a trial ended. What a neighbour did to the application is the result, and no failure of the trial;
    alone it must keep up with its load, or there is nothing to compare with."""
    load = window.load
    if load.late:
        return "void", load.reason
    if case.kind:
        return "ok", ""
    if lost:
        return "failed", f"alone: {lost}"
    too_many = load.error_fraction > error_fraction
    if not load.ok or load.saturated or too_many:
        what = f"{load.failed} of {load.ok + load.failed} requests failed" if too_many else "it is saturated"
        return "failed", f"alone it does not keep up with its load: {what}; lower x-testbed.neighbours.rate_per_s"
    return "ok", ""


def make_victim_metrics(window: Window, limit_ms: float, *, survived: bool) -> tuple[Metric, ...]:
    """Return whether the application survived (1 or 0), what fraction of its requests was slower than its service level
    allows, and whether that is surely more than one in a hundred (``slo_broken``)."""
    counts = make_window(window.load, limit_ms)
    if not counts.answered:
        return (Metric("survived", float(survived), "1"), Metric("slo_broken", 1.0, "1"))
    broken = bound_fraction(counts.slow, counts.answered)[0] > SLOW_FRACTION
    return (
        Metric("survived", float(survived), "1"),
        Metric("slow_fraction", counts.slow / counts.answered, "1"),
        Metric("slo_broken", float(broken), "1"),
    )


def make_window_metrics(rate_per_s: float, window: Window, beside: Beside | None) -> tuple[Metric, ...]:
    """Return the figures of the load, as ``utilisation`` has them, and what the neighbour took and did meanwhile; what
    it does not say of itself is absent, and so is what nobody can tell of two that are metered together.

    ``host_neighbour`` is its part of the host's processor time, which is none of the others' then.
    """
    metrics = make_metrics(rate_per_s, window)
    if beside is None:
        return metrics
    said = [Metric("neighbour_alive", float(beside.alive), "1")]
    if beside.state is not None:
        said += [Metric(f"neighbour_{name}", getattr(beside.state, name), "1") for name in State.__struct_fields__]
    if beside.used is None:
        return (*(one for one in metrics if one.metric not in _PER_REQUEST), *said)
    part = compute_shares(window.before, window.after, beside.used.cpu_s, 0.0).application
    return (
        *(replace(one, value=max(one.value - part, 0.0)) if one.metric == "host_others" else one for one in metrics),
        Metric("host_neighbour", part, "1"),
        Metric("neighbour_cpu", beside.used.cpu_s, "s"),
        Metric("neighbour_memory", beside.used.cgroup_bytes, "bytes"),
        *said,
    )
