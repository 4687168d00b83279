"""Start: how long the application takes from the request to its first right answer, phase by phase, and until its
latency is steady."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from statistics import median

from testbed.load.open_loop import Target
from testbed.measures import counting, metering, overhead, throttling
from testbed.measures.application import Application
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steady import Answered, choose_window_s, find_steady, watch_latency
from testbed.measures.timeline import Timeline
from testbed.platforms.protocol import Filled
from testbed.results import Metric, Trial


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Start the application once, watch its latency, and stop it again.

    Raises WorkloadError when it is not ready in time.
    """
    platform = context.platforms[planned.platform]
    before = overhead.read(platform, ())
    with Application(context, platform, 0, f"t{planned.trial:03}") as application:
        timeline, filled = application.timeline, tuple(application.filled.values())
        beside = overhead.read(platform, application.instances)
        metered = metering.read(platform, application.instances)
        context.progress(f"  ready after {(timeline.ready_ns - timeline.requested_ns) / 1e9:.3f} s")
        load = context.settings.load
        target = Target(application.addresses[load.service], load.port, load.kinds)
        window_s = choose_window_s(load)
        is_asked = bool(context.settings.ready.path)
        answered = watch_latency(target, window_s, application.check_alive) if is_asked else []
    metrics = (
        *make_metrics(timeline),
        *(make_steady_metrics(timeline, answered, window_s) if is_asked else ()),
        *make_pool_metrics(filled),
        *overhead.make_metrics(before, beside),
        *metered,
    )
    rows = [((one.due_ns - timeline.requested_ns) / 1e9, one.latency_s) for one in answered]
    samples = context.folder.write_samples(f"t{planned.trial:03}", ("due_s", "latency_s"), rows)
    yield Trial(planned.trial, planned.block, planned.platform, planned.measure, "ok", metrics=metrics, samples=samples)


def make_metrics(timeline: Timeline) -> tuple[Metric, ...]:
    """Return the phases as seconds since the application was requested.

    The application's own: ``created`` and ``first_process`` when the last service got there, ``port_open`` and
    ``ready`` by the ready check. Then ``<service>.<phase>`` for each service, its own ``request`` among them, for
    services are requested one after the other. Last comes what the quota of processor time held back meanwhile,
    and what was counted until the application was ready.
    """
    phases = {
        phase: max(service[phase] for service in timeline.services.values()) for phase in ("created", "first_process")
    }
    phases |= {"port_open": timeline.port_open_ns, "ready": timeline.ready_ns}
    for name, service in timeline.services.items():
        phases |= {f"{name}.{phase}": at_ns for phase, at_ns in service.items()}
    seconds = tuple(Metric(name, (at_ns - timeline.requested_ns) / 1e9, "s") for name, at_ns in phases.items())
    return (*seconds, *throttling.make_metrics(timeline.held_back), *counting.make_metrics(*timeline.counted))


def make_steady_metrics(timeline: Timeline, answered: Sequence[Answered], window_s: float) -> tuple[Metric, ...]:
    """Return since when latency was ``steady``, seconds since the request, and its median from then on.

    Latency that is steady from the first request of the schedule on is so since the first right answer. Without
    ``steady`` it was not within ``steady_window``, the seconds that it was watched, or nearly nothing was answered.
    """
    window = Metric("steady_window", window_s, "s")
    begin = find_steady([one.latency_s for one in answered])
    if begin is None:
        return (window,)
    since_ns = answered[begin].due_ns if begin else timeline.ready_ns
    latency_s = median(one.latency_s for one in answered[begin:])
    steady = Metric("steady", (since_ns - timeline.requested_ns) / 1e9, "s")
    return (window, steady, Metric("steady_latency", latency_s, "s"))


def make_pool_metrics(filled: Sequence[Filled]) -> tuple[Metric, ...]:
    """Return what was done before the request: the seconds that it took to make all instances up to their last step,
    what they were charged while they waited, and how many had to be replaced. Nothing where nothing was."""
    if not filled:
        return ()
    return (
        Metric("pool_fill", sum(one.took_ns for one in filled) / 1e9, "s"),
        Metric("pool_memory", sum(one.memory_bytes for one in filled), "bytes"),
        Metric("pool_replaced", sum(one.replaced for one in filled), "1"),
    )
