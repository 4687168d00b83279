"""Start: how long the application takes from the request to its first right answer, phase by phase."""

from __future__ import annotations

from collections.abc import Generator

from testbed.measures import throttling
from testbed.measures.application import Application, Timeline
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.results import Metric, Trial


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Start the application once and stop it again. Raises WorkloadError when it is not ready in time."""
    platform = context.platforms[planned.platform]
    with Application(context, platform, 0, f"t{planned.trial:03}") as application:
        timeline = application.timeline
    context.progress(f"  ready after {(timeline.ready_ns - timeline.requested_ns) / 1e9:.3f} s")
    yield Trial(planned.trial, planned.block, planned.platform, planned.measure, "ok", metrics=make_metrics(timeline))


def make_metrics(timeline: Timeline) -> tuple[Metric, ...]:
    """Return the phases as seconds since the application was requested.

    The application's own: ``created`` and ``first_process`` when the last service got there, ``port_open`` and
    ``ready`` by the ready check. Then ``<service>.<phase>`` for each service, its own ``request`` among them, for
    services are requested one after the other. Last comes what the quota of processor time held back meanwhile.
    """
    phases = {
        phase: max(service[phase] for service in timeline.services.values()) for phase in ("created", "first_process")
    }
    phases |= {"port_open": timeline.port_open_ns, "ready": timeline.ready_ns}
    for name, service in timeline.services.items():
        phases |= {f"{name}.{phase}": at_ns for phase, at_ns in service.items()}
    seconds = tuple(Metric(name, (at_ns - timeline.requested_ns) / 1e9, "s") for name, at_ns in phases.items())
    return (*seconds, *throttling.make_metrics(timeline.held_back))
