"""What an application costs that nobody asks anything: processor time, wake-ups and memory of an idle copy."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from msgspec import Struct

from testbed.counts import count_switches, read_wakeups
from testbed.measures.application import Application
from testbed.results import Metric
from testbed.sample import read_usage, sum_cpu_ns


class Idle(Struct, frozen=True):
    """An idle copy, watched for ``elapsed_s``: CPU seconds of all its instances in that time, how often one of their
    threads was woken (None where there are too many threads to count), and the bytes they hold at its end."""

    elapsed_s: float
    cpu_s: float
    wakeups: int | None
    cgroup_bytes: int
    pss_bytes: int


class _Reading(Struct, frozen=True):
    """An application at a moment."""

    t_ns: int
    cpu_ns: int
    wakeups: tuple[Mapping[int, int] | None, ...]


def watch_idle(application: Application, idle_s: float) -> Idle:
    """Watch a running application, which must have no load, for so long. Raises WorkloadError when it ends meanwhile.

    What is read at the beginning and at the end are files of its cgroups and of its threads, so that reading disturbs
    neither. A thread that begins and ends in between is not seen.
    """
    before = _read(application)
    time.sleep(idle_s)
    application.check_alive()
    after = _read(application)
    usages = [read_usage(cgroup) for cgroup in application.cgroups().values()]
    return Idle(
        (after.t_ns - before.t_ns) / 1e9,
        (after.cpu_ns - before.cpu_ns) / 1e9,
        _count(zip(before.wakeups, after.wakeups, strict=True)),
        sum(usage.cgroup_bytes for usage in usages),
        sum(usage.pss_bytes for usage in usages),
    )


def _read(application: Application) -> _Reading:
    cgroups = tuple(application.cgroups().values())
    return _Reading(
        time.monotonic_ns(),
        sum_cpu_ns(cgroups),
        tuple(read_wakeups(cgroup.pids()) for cgroup in cgroups),
    )


def _count(pairs: Iterable[tuple[Mapping[int, int] | None, Mapping[int, int] | None]]) -> int | None:
    total = 0
    for before, after in pairs:
        if before is None or after is None:
            return None
        total += count_switches(before, after)
    return total


def make_metrics(idle: Idle) -> tuple[Metric, ...]:
    """Return what an idle copy takes: ``idle_cpu`` in processors (a CPU second per second), ``idle_wakeups`` per
    second, and its memory in bytes."""
    wakeups = () if idle.wakeups is None else (Metric("idle_wakeups", idle.wakeups / idle.elapsed_s, "1/s"),)
    return (
        Metric("idle_cpu", idle.cpu_s / idle.elapsed_s, "1"),
        *wakeups,
        Metric("idle_memory", idle.cgroup_bytes, "bytes"),
        Metric("idle_pss", idle.pss_bytes, "bytes"),
        Metric("idle_window", idle.elapsed_s, "s"),
    )
