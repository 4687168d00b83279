"""Work: the application does once what it is there for, and its own figures are recorded beside what that took."""

from __future__ import annotations

import math
import time
from collections.abc import Generator

from runtime.errors import UsageError, WorkloadError
from runtime.output import printable
from testbed.measures import counting, throttling
from testbed.measures.application import Application
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.platforms.protocol import Platform
from testbed.results import Metric, Trial
from testbed.sample import sum_cpu_ns
from testbed.scenario.work import Work, convert
from testbed.services.exchange import Exchange, NoAnswer, fetch

# How long an end may take to be seen, once there is no answer.
_ENDING_S = 2.0
# What is quoted of an answer that is none.
_QUOTED_CHARACTERS = 300


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Start the application, have its work done, and stop it again.

    Raises WorkloadError when it is not ready in time, and when the work fails or leaves out a figure.
    """
    work = require_work(context.settings.work, context.scenario.name)
    platform = context.platforms[planned.platform]
    label = f"t{planned.trial:03}"
    with Application(context, platform, 0, label) as application:
        cgroups, meters = application.parts(), tuple(application.meters().values())
        counted = counting.read(platform, application.instances)
        held_back = throttling.read(cgroups)
        cpu_ns = sum_cpu_ns(meters)
        exchange = _have_it_done(work, application, work_timeout_s(work, platform))
        cpu_ns = sum_cpu_ns(meters) - cpu_ns
        memory_bytes = sum(meter.memory_bytes() for meter in meters)
        context.folder.log_path(f"{label}-work").write_bytes(exchange.body)
        figures = make_figures(work, exchange, application)
        since = {part: one.since(held_back[part]) for part, one in throttling.read(cgroups).items()}
        metrics = (
            *figures,
            Metric("work_duration", exchange.seconds, "s"),
            Metric("work_cpu", cpu_ns / 1e9, "s"),
            Metric("work_memory", memory_bytes, "bytes"),
            *throttling.make_metrics(since),
            *counting.make_metrics(counted, counting.read(platform, application.instances)),
        )
    context.progress(f"  worked for {exchange.seconds:.2f} s")
    yield Trial(planned.trial, planned.block, planned.platform, planned.measure, "ok", metrics=metrics)


def require_work(work: Work | None, scenario: str) -> Work:
    """Return the work of a scenario. Raises UsageError when it has none."""
    if work is None:
        raise UsageError(
            f"scenario {scenario} has no work to measure",
            "leave the measure work out, or add x-testbed.work: a service, its port, and figures",
        )
    return work


def work_timeout_s(work: Work, platform: Platform) -> float:
    """Return how long the work may take on that platform."""
    return platform.patience * (work.timeout_vm_s if platform.virtual else work.timeout_s)


def _have_it_done(work: Work, application: Application, timeout_s: float) -> Exchange:
    """Ask for the work and wait until it is done. Raises WorkloadError when it is not, or a service ends meanwhile."""
    address = application.addresses[work.service]
    try:
        return fetch(address, work.port, work.path, timeout_s, application.check_alive)
    except NoAnswer as error:
        # A process that has ended closes its connections first.
        deadline_s = time.monotonic() + _ENDING_S
        while time.monotonic() < deadline_s:
            application.check_alive()
            time.sleep(0.02)
        raise application.failure(f"{_request(work)}: {error}") from error


def _request(work: Work) -> str:
    return f"GET {work.path} on {work.service}"


def make_figures(work: Work, exchange: Exchange, application: Application) -> tuple[Metric, ...]:
    """Return the figures of an answer, in base units. Raises WorkloadError for one that says the work has failed, or
    that does not hold each figure once."""
    try:
        if exchange.status != 200:
            raise ValueError(f"status {exchange.status}")
        return parse_figures(work, exchange.body)
    except ValueError as error:
        answer = printable(exchange.body.decode(errors="replace").strip()[:_QUOTED_CHARACTERS])
        raise _failure(application, f"{_request(work)}: {error}", answer) from error


def _failure(application: Application, what: str, answer: str) -> WorkloadError:
    failure = application.failure(what)
    return WorkloadError(failure.message, f"it answered: {answer or '(nothing)'}\n  {failure.hint}")


def parse_figures(work: Work, body: bytes) -> tuple[Metric, ...]:
    """Return what an answer holds as ``name=number`` between blanks, of the figures that the work has.

    Raises ValueError for a figure that is missing, there twice, or no number from 0 on.
    """
    written: dict[str, list[str]] = {}
    for word in body.decode(errors="replace").split():
        name, equals, text = word.partition("=")
        if equals:
            written.setdefault(name, []).append(text)
    metrics = []
    for name, unit in work.figures:
        texts = written.get(name, [])
        if len(texts) != 1:
            raise ValueError(f"the answer has {'no' if not texts else len(texts)} {name}=")
        value, base = convert(_number(name, texts[0]), unit)
        metrics.append(Metric(name, value, base))
    return tuple(metrics)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1e15:  # false for a NaN, too
        raise ValueError(f"{name}={text[:40]!r} is no number from 0 to 1e15")
    return number
