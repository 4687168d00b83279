"""Utilisation: what a request costs at several rates, in processor time and memory, and how long it takes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from time import process_time
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from testbed.histograms import can_tell, find_percentiles, name_percentile
from testbed.load.arrivals import Schedule
from testbed.load.open_loop import LoadResult, Target, run_load
from testbed.measures import counting, metering, overhead, throttling
from testbed.measures.application import Application, list_targets
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.platforms.protocol import Platform
from testbed.results import Metric, Outcome, Trial
from testbed.sample import HostReading, Meter, compute_shares, compute_utilisation
from testbed.sampler.plan import Target as Sampled
from testbed.sampler.records import COLUMNS, Row, Usage, summarise_usage, tabulate
from testbed.sampler.sampler import Account, Sampler


class Offer(Struct, frozen=True):
    """A load that is offered to an application: its rate, how long it is counted, and when its requests are due."""

    rate_per_s: float
    duration_s: float
    seed: int
    schedule: Schedule = Schedule()


class Window(Struct, frozen=True):
    """What was seen from the end of the warm-up to the last answer.

    ``used`` has one entry an instance, by its part of the application; ``metered_bytes`` is what all have after the
    last answer where no cgroup has them. ``sampled`` is what sampling took, and ``own_cpu_s`` what this process used
    meanwhile. ``counted`` are the counts before the warm-up's first request and after the last answer: to read them in
    between would delay requests.
    """

    load: LoadResult
    used: Mapping[str, Usage]
    before: HostReading
    after: HostReading
    rows: tuple[Row, ...] = ()
    sampled: Account | None = None
    own_cpu_s: float = 0.0
    counted: tuple[counting.Tally | None, counting.Tally | None] = (None, None)
    metered_bytes: float | None = None


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Start one application and offer it each rate of the plan; one trial a rate.

    Raises WorkloadError when the application does not start; when it ends later, that trial and the rest fail.
    """
    platform = context.platforms[planned.platform]
    with Application(context, platform, 0, f"t{planned.trial:03}") as application:
        for index in range(len(planned.levels)):
            trial = _trial(context, platform, planned, application, index)
            application.check_alive()
            yield trial


def _trial(
    context: RunContext, platform: Platform, planned: PlannedTrial, application: Application, index: int
) -> Trial:
    """Return the trial of one rate; it is void when the generator was late."""
    rate_per_s, number = float(planned.levels[index]), planned.trial + index
    context.meet()
    before = overhead.read(platform, application.instances)
    load = context.settings.load
    asked = Offer(rate_per_s, load.duration_s, context.rate_seed(planned.block, rate_per_s), load.schedule)
    window = offer(context, platform, application, asked)
    beside = overhead.make_metrics(before, overhead.read(platform, application.instances))
    outcome, reason = judge_load(window.load)
    context.progress(
        f"  {rate_per_s:g}/s: {describe_outcome(window.load)}{f' ({outcome}: {reason})' if reason else ''}"
    )
    return Trial(
        number,
        planned.block,
        planned.platform,
        planned.measure,
        outcome,
        reason,
        {"rate_per_s": rate_per_s},
        (*make_metrics(rate_per_s, window), *beside),
        context.folder.write_samples(f"t{number:03}", COLUMNS, tabulate(window.rows)),
        histogram=context.folder.write_histogram(f"t{number:03}", window.load.latencies, window.load.elapsed_s),
    )


def offer(
    context: RunContext,
    platform: Platform,
    application: Application,
    asked: Offer,
    beside: Mapping[str, Sampled] = MappingProxyType({}),
) -> Window:
    """Offer a load, sampling from the end of the warm-up on; of what else runs ``beside`` it, too."""
    load = context.settings.load
    target = Target(application.addresses[load.service], load.port, load.kinds)
    meters = application.meters()
    begun: list[tuple[dict[str, int], HostReading, float]] = []
    counted = counting.read(platform, application.instances)

    def begin() -> None:
        # Requests are due from now on: what they use must not wait for the sampler to have its turn.
        begun.append((read_cpu_ns(meters), metering.read_host(platform), process_time()))
        undo.enter_context(sampler)

    with ExitStack() as undo:
        sampler = Sampler({**list_targets([application]), **beside})
        undo.callback(sampler.close)
        result = run_load(
            target,
            asked.rate_per_s,
            asked.duration_s,
            load.connections,
            asked.seed,
            warmup_s=load.warmup_s,
            schedule=asked.schedule,
            started=begin,
        )
        after, ended_cpu_s, ended_ns = metering.read_host(platform), process_time(), read_cpu_ns(meters)
    tallies = counted, counting.read(platform, application.instances)
    began_ns, before, began_cpu_s = begun[0]
    sampling = sampler.sampling
    for what in sampling.unread:
        context.progress(f"  not sampled: {what}")
    used = {}
    for instance in application.instances:
        usage = summarise_usage(sampling.rows, instance.name)
        if instance.name in began_ns and instance.name in ended_ns:
            usage = replace(usage, cpu_s=(ended_ns[instance.name] - began_ns[instance.name]) / 1e9)
        used[throttling.name_part(instance)] = usage
    own_s = ended_cpu_s - began_cpu_s
    metered = {one.metric: one.value for one in metering.read(platform, application.instances)}
    held_bytes = metered.get("metered_memory")
    return Window(result, used, before, after, sampling.rows, sampling.account, own_s, tallies, held_bytes)


def read_cpu_ns(meters: Mapping[str, Meter]) -> dict[str, int]:
    """Return the CPU time of each instance so far, in nanoseconds, without those that have gone."""
    found: dict[str, int] = {}
    for name, meter in meters.items():
        with suppress(OSError):
            found[name] = meter.cpu_usage_ns()
    return found


def judge_load(result: LoadResult) -> tuple[Outcome, str]:
    """Return an application that answers nothing has failed; otherwise a late generator voids the trial."""
    if not result.ok:
        return "failed", f"no request succeeded: {describe_failures(result)}"
    return ("void", result.reason) if result.late else ("ok", "")


def describe_outcome(result: LoadResult) -> str:
    """Return a load's outcome in a few words."""
    if result.saturated:
        return f"saturated, {result.achieved_rate_per_s:.0f}/s answered"
    found = find_percentiles(result.latencies)
    if not found:
        return f"{result.ok} answered, too few for percentiles"
    return f"p{max(found):g} {found[max(found)] / 1e3:.1f} ms"


def describe_failures(result: LoadResult) -> str:
    """Return why requests failed, and how many for each reason."""
    return ", ".join(f"{count} x {reason}" for reason, count in result.failures.items())


def make_metrics(rate_per_s: float, window: Window) -> tuple[Metric, ...]:
    """Return the figures of one rate. Where no cgroup has the instances, theirs are ``memory_metered`` and what follows
    from it, in place of ``memory_cgroup`` and ``memory_pss``.

    ``cpu_per_request`` is all processor time of the application's cgroups over the successful requests, so it
    holds what the application (and an emulator's or hypervisor's process) uses when idle; ``memory_per_request``
    is the mean cgroup charge over the successful requests per second: the memory that is held for a
    second to answer one request. Neither exists when nothing succeeded. A ``saturated`` application has no latency: it
    grows for as long as the load lasts. ``host_utilisation`` is the sum of its three parts, as far as ticks can tell.
    """
    load = window.load
    application_s = sum(used.cpu_s for used in window.used.values())
    own_s = window.own_cpu_s + (window.sampled.cpu_s if window.sampled else 0.0)
    parts = compute_shares(window.before, window.after, application_s, load.generator_cpu_s + own_s)
    held_bytes, held = sum(used.cgroup_bytes for used in window.used.values()), "memory_cgroup"
    if window.metered_bytes is not None:
        held_bytes, held = window.metered_bytes, "memory_metered"
    pss_bytes = sum(used.pss_bytes for used in window.used.values())
    figures = [
        Metric("rate", rate_per_s, "1/s"),
        Metric("achieved_rate", load.achieved_rate_per_s, "1/s"),
        Metric("requests_ok", load.ok, "1"),
        Metric("requests_failed", load.failed, "1"),
        Metric(held, held_bytes, "bytes"),
        *([Metric("memory_pss", pss_bytes, "bytes")] if window.metered_bytes is None else []),
        Metric("host_utilisation", compute_utilisation(window.before, window.after), "1"),
        Metric("host_application", parts.application, "1"),
        Metric("host_generator", parts.generator, "1"),
        Metric("host_others", parts.others, "1"),
        Metric("saturated", float(load.saturated), "1"),
        *([Metric("generator_lag_p99", load.lag_p99_s, "s")] if can_tell(load.ok + load.failed, 99) else []),
        Metric("generator_lag_max", load.lag_max_s, "s"),
        Metric("generator_cpu", load.generator_cpu_s, "s"),
        *(make_sampler_metrics(window.sampled) if window.sampled else ()),
        *throttling.make_metrics({part: used.throttling for part, used in window.used.items()}),
        *counting.make_metrics(*window.counted, load.offered if load.ok else 0),
    ]
    if load.ok:
        figures += [
            Metric("cpu_per_request", application_s / load.ok, "s"),
            Metric("memory_per_request", held_bytes / load.achieved_rate_per_s, "bytes s"),
        ]
    if load.ok and not load.saturated:
        figures += make_latency_metrics(load)
    return tuple(figures)


def make_latency_metrics(load: LoadResult) -> tuple[Metric, ...]:
    """Return the percentiles of a load's latency that its number of requests can tell, and that number, ``latency_n``:
    the successes, and the timeouts as long as they had waited."""
    percentiles = (
        Metric(f"latency_{name_percentile(percentile)}", usec / 1e6, "s")
        for percentile, usec in find_percentiles(load.latencies).items()
    )
    return (*percentiles, Metric("latency_n", load.latencies.get_total_count(), "1"))


def make_sampler_metrics(account: Account) -> tuple[Metric, ...]:
    """Return what sampling took in the window, in CPU seconds; of them, those of PSS with its last reading, which comes
    after the window; how often CPU time and PSS of an instance were read in a second; and how late the samples came."""
    return (
        Metric("sampler_cpu", account.cpu_s, "s"),
        Metric("sampler_pss_cpu", account.group_cpu_s.get("pss", 0.0), "s"),
        Metric("sampler_rate", account.rates_per_s.get("cpu", 0.0), "1/s"),
        Metric("sampler_pss_rate", account.rates_per_s.get("pss", 0.0), "1/s"),
        Metric("sampler_lag_p99", account.late_p99_s, "s"),
    )
