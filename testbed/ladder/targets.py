"""What a run of the ladder goes over: the rungs that are asked for, or all that run here, and platforms beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from runtime.errors import PrerequisiteError, UsageError
from testbed.ladder.model import Missing
from testbed.platforms import registry
from testbed.platforms.hypervisors import HYPERVISORS
from testbed.rungs.model import History, Rung


class Target(Struct, frozen=True):
    """What is attacked and priced: the ``platform`` whose instances stand for a ``rung``, or for themselves."""

    name: str
    platform: str
    rung: Rung | None = None


def choose_targets(
    history: History, rungs: Sequence[str], platforms: Sequence[str], tell: Callable[[str], None]
) -> tuple[tuple[Target, ...], tuple[Missing, ...]]:
    """Return the targets in the order of their years, platforms last, and the rungs that cannot be had here.

    Without names these are all rungs that run. Raises UsageError for a name that is none, or is only told of, and
    PrerequisiteError for one that was asked for by name and cannot be had.
    """
    targets = [Target(one.name, one.platform or one.name, one) for one in find_runnable(history, rungs)]
    beside = registry.check_names(registry.expand(platforms, tell)) if platforms else ()
    stands_for = {one.platform for one in targets}
    targets += [Target(name, name) for name in beside if name not in stands_for]
    own = dict.fromkeys(one.platform for one in targets)
    why = {name: f"there is no platform {name}" for name in own if name not in (*registry.NAMES, *HYPERVISORS)}
    why |= {one.name: one.why for one in registry.find_missing(name for name in own if name not in why)}
    if asked := [one for one in targets if one.platform in why and (one.rung is None or rungs)]:
        raise PrerequisiteError(f"{asked[0].name} cannot be run here: {why[asked[0].platform]}", "leave it out")
    here = tuple(one for one in targets if one.platform not in why)
    missing = tuple(Missing(one.name, why[one.platform]) for one in targets if one.platform in why)
    if not here:
        raise PrerequisiteError("no rung of the ladder can be run here", "./invoke doctor says what is missing")
    return here, missing


def find_runnable(history: History, rungs: Sequence[str]) -> tuple[Rung, ...]:
    """Return the rungs of these names, or all that run, by year. Raises UsageError for a name that is no rung, is only
    told of, or stands twice."""
    by_name = {one.name: one for one in history.rungs}
    known = ", ".join(one.name for one in history.rungs if one.runs)
    for name in rungs:
        if name not in by_name:
            raise UsageError(f"--rungs {name}: there is no such rung", f"those that run: {known}")
        if not by_name[name].runs:
            raise UsageError(f"--rungs {name}: it is told of, and nothing of it runs", f"those that run: {known}")
    if len(set(rungs)) < len(rungs):
        raise UsageError("--rungs: a rung is named twice", "name each once")
    return tuple(one for one in history.rungs if one.runs and (one.name in rungs or not rungs))
