"""Density: how many copies of the application fit, and what memory each one takes.

Applications are added one at a time (testbed.measures.ramp), all of them under the same low load that only probes
whether they answer in time, until the service level breaks, the host's memory runs short, or a stated cap is reached.
What the first application takes, and what each further one adds, is told apart (see testbed.copies). How much of a host
servers use that have work to do is consolidation's question (testbed.measures.consolidation).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack

from testbed.measures.context import RunContext
from testbed.measures.level import CONFIDENCE, MOST_WINDOWS
from testbed.measures.ramp import CopyLoad, Ramp, RampSettings, count_most_applications, count_ports
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steps import make_metrics, make_part_metrics
from testbed.results import Trial


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Add applications until one of the limits. Raises WorkloadError when not even the first one starts."""
    density, platform = context.settings.density, context.platforms[planned.platform]
    cap = count_most_applications(density.cap, count_ports(context.scenario, platform))
    settings = RampSettings(
        cap,
        density.settle_s,
        density.window_s,
        lambda copy: CopyLoad(density.rate_per_s),
        lambda running: find_next_step(running, density.steps),
    )
    with ExitStack() as applications:
        ramp = Ramp(context, platform, settings, applications, trial=planned.trial, block=planned.block)
        stop = ramp.run()
    context.progress(f"  {ramp.within_slo} applications ({stop.reason})")
    yield Trial(
        planned.trial,
        planned.block,
        planned.platform,
        planned.measure,
        stop.outcome,
        stop.reason,
        {"rate_per_s": density.rate_per_s, "cap": cap, "most_windows": MOST_WINDOWS, "confidence": CONFIDENCE},
        (*make_metrics(ramp.within_slo, ramp.points), *make_part_metrics(ramp.parts)),
        ramp.write(),
    )


def find_next_step(running: int, steps: Sequence[int]) -> int:
    """Return with how many applications a ramp is looked at next: the next of ``steps``, or else one more."""
    return next((step for step in steps if step > running), running + 1)
