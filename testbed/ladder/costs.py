"""What a rung costs: start, an idle instance's memory, system calls, forks, round trips, requests, copies.

All times are the host's CLOCK_MONOTONIC, also of what happens inside: the gauge is told to do something many times, and
what passes until it has answered is divided by that, less what an answer takes by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from msgspec import Struct

from runtime.images.model import Image
from runtime.launcher import launch
from runtime.launcher.times import StepTimes, time_steps
from runtime.plan.steps import Exec, Plan
from testbed.ladder.closed_loop import count_answers
from testbed.ladder.gauge import Gauge, make_instance
from testbed.ladder.image import PROGRAM
from testbed.ladder.model import HOST
from testbed.ladder.parts import NAMESPACES, describe_step, find_part
from testbed.measures.application import Application, ready_timeout_s
from testbed.measures.context import Surroundings
from testbed.platforms.protocol import Platform

START, MEMORY, CALL, FORK = "start_s", "memory_bytes", "syscall_ns", "fork_us"
ROUND_TRIP, REQUESTS, COPIES = "round_trip_us", "requests_per_s", "copies"
_WARMUP_PINGS, _PINGS = 20, 200
_WARMUP_S = 0.15
# What the generator of a closed loop keeps under way: enough for two processors.
_CONNECTIONS = 8
# Copies are counted for so much memory; from fewer copies nothing is concluded.
PER_BYTES = 1 << 30
_FEWEST_COPIES = 4
_TRUE = "/bin/true"


class Effort(Struct, frozen=True):
    """How much is done: trials of an instance, of a load and of a ramp; in one of them system calls, forks, seconds of
    load; and of copies the most, and the seconds after which no more are started."""

    trials: int = 7
    loads: int = 2
    ramps: int = 1
    calls: int = 200_000
    forks: int = 100
    load_s: float = 0.4
    most_copies: int = 32
    copies_s: float = 1.5
    rounds: int = 15


FULL = Effort()
QUICK = Effort(trials=3, loads=1, ramps=1, calls=50_000, forks=30, load_s=0.3, most_copies=12, copies_s=0.8, rounds=6)
# A kernel boots for each start.
VIRTUAL = Effort(trials=3, loads=1, ramps=0, calls=50_000, forks=30)
QUICK_VIRTUAL = Effort(trials=1, loads=0, ramps=0, calls=20_000, forks=20)
# A start takes ten seconds, and clickme up to three minutes until it answers: a range of two, and no requests.
EMULATED = Effort(trials=2, loads=0, ramps=0, calls=20_000, forks=20)
# Nothing varies where instructions are counted, and each of them takes long.
COUNTED = Effort(trials=2, loads=1, ramps=1, calls=5_000, forks=20, load_s=0.2, most_copies=8, copies_s=0.8, rounds=3)
COUNTED_VIRTUAL = Effort(trials=1, loads=1, ramps=0, calls=5_000, forks=20, load_s=0.2, rounds=3)


def choose_effort(platform: Platform, quick: bool, clock: str = HOST) -> Effort:
    """Return how much is done on a platform."""
    if clock != HOST:
        return COUNTED_VIRTUAL if platform.virtual else COUNTED
    if platform.virtual and not quick:
        return EMULATED if platform.emulated else VIRTUAL
    return QUICK_VIRTUAL if platform.virtual else QUICK if quick else FULL


class Step(Struct, frozen=True):
    """What one step of a start took."""

    step: str
    part: str
    took_us: float


class Trial(Struct, frozen=True):
    """What one instance cost, by metric, and its start by step: empty where the platform's own program makes it."""

    values: Mapping[str, float]
    steps: tuple[Step, ...] = ()


def measure_instance(surroundings: Surroundings, platform: Platform, image: Image, label: str, effort: Effort) -> Trial:
    """Start a gauge, have it do what is timed, and stop it. Raises WorkloadError when it does not answer."""
    timeout_s = ready_timeout_s(surroundings.settings.ready, platform)
    link = surroundings.addresses.link(0, 0)
    instance = make_instance(label, 0, image, link, surroundings.folder.log_path(label))
    with time_steps() as times, Gauge(platform, instance, timeout_s) as gauge:
        values = {START: gauge.started_s}
        if (memory := gauge.read_memory_bytes()) is not None:
            values[MEMORY] = float(memory)
        for _ in range(_WARMUP_PINGS):
            gauge.ask("ping")
        ping_ns = median(gauge.ask("ping") for _ in range(_PINGS))
        values[ROUND_TRIP] = ping_ns / 1e3
        values[CALL] = max(0.0, gauge.ask(f"calls {effort.calls}") - ping_ns) / effort.calls
        values[FORK] = max(0.0, gauge.ask(f"forks {effort.forks}") - ping_ns) / effort.forks / 1e3
    return Trial(values, list_steps(times))


def list_steps(times: Sequence[StepTimes]) -> tuple[Step, ...]:
    """Return the steps of the plan that ends with the gauge's program: what another program makes has none of ours."""
    for one in reversed(times):
        if any(isinstance(step, Exec) and PROGRAM in step.args for step in one.plan.steps()):
            return tuple(
                Step(describe_step(step, one.plan.clone_flags), find_part(step), took_ns / 1e3)
                for step, took_ns in one.list_durations_ns()
            )
    return ()


def measure_load(surroundings: Surroundings, platform: Platform, label: str, effort: Effort) -> Trial:
    """Start the scenario's application and ask it in a closed loop: what it can do at most."""
    load = surroundings.settings.load
    with Application(surroundings, platform, 0, label) as application:
        address = application.addresses[load.service]
        rate = count_answers(address, load.port, load.kinds[0], _CONNECTIONS, _WARMUP_S, effort.load_s)
    return Trial({REQUESTS: rate})


def measure_copies(surroundings: Surroundings, platform: Platform, image: Image, label: str, effort: Effort) -> Trial:
    """Start gauges one beside the other, all of which must answer; return how many would fit in a GiB by what the
    kernel charges for each but the first, which brings what they share. Nothing where too few were started."""
    timeout_s = ready_timeout_s(surroundings.settings.ready, platform)
    gauges: list[Gauge] = []
    with ExitStack() as undo:
        began_s = time.monotonic()
        for number in range(effort.most_copies):
            name = f"{label}-{number}"
            link = surroundings.addresses.link(number, 0)
            instance = make_instance(name, number, image, link, surroundings.folder.log_path(name))
            gauges.append(undo.enter_context(Gauge(platform, instance, timeout_s)))
            if time.monotonic() - began_s > effort.copies_s:
                break
        charges = [gauge.read_memory_bytes() for gauge in gauges]
    copies = compute_copies([charge for charge in charges if charge is not None])
    return Trial({} if copies is None else {COPIES: copies})


def compute_copies(charges: list[int]) -> float | None:
    """Return how many copies fit in a GiB by the charge of each, bytes, in the order of their starts; None where it
    cannot be told."""
    further = sum(charges[1:])
    return PER_BYTES * (len(charges) - 1) / further if len(charges) >= _FEWEST_COPIES and further > 0 else None


def time_namespaces(rounds: int) -> dict[str, list[float]]:
    """Return what a clone takes with one kind of namespace, in microseconds, by the step's words: in rounds that have
    each kind once, and one clone without any. Raises StepError for a kind that the kernel refuses."""
    times: dict[str, list[float]] = {}
    with Path(os.devnull).open("r+b") as null:
        for _ in range(rounds):
            for name, flag in {"none": 0, **NAMESPACES}.items():
                took = _time_clone(flag, null.fileno())
                times.setdefault(f"clone3 with a new namespace: {name}", []).append(took)
    return times


def _time_clone(flags: int, null: int) -> float:
    plan = Plan((Exec((_TRUE,)),), clone_flags=flags)
    with time_steps() as times:
        spawned = launch(plan, stdin=null, stdout=null, stderr=null)
        os.waitpid(spawned.pid, 0)
    return next(took_ns for step, took_ns in times[0].list_durations_ns() if step is None) / 1e3
