"""A whole study of fleets: each simulated, drawn again from other seeds, compacted, and its assumptions varied."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from testbed.fleet.compaction import Compaction, compact
from testbed.fleet.demands import group, list_demands, make_room
from testbed.fleet.distributions import Mix, draw_servers
from testbed.fleet.hosting import compute_hosting, find_base, take_estimates
from testbed.fleet.packing import MOST_SIZES, Heuristic, count_hosts
from testbed.fleet.parallel import spread
from testbed.fleet.sensitivity import Sensitivity, choose_compared, find_sensitivity
from testbed.fleet.simulate import Outcome, Question, simulate


class Redrawn(Struct, frozen=True):
    """Hosts on a platform for the fleet as it was drawn from each seed, the first one's included."""

    platform: str
    hosts: tuple[int, ...]


class Fleet(Struct, frozen=True):
    """A fleet's outcome, with what was asked beside it: other draws of it, its cells' compaction by platform, and what
    the ratio between platforms depends on."""

    name: str
    outcome: Outcome
    redrawn: tuple[Redrawn, ...] = ()
    compaction: tuple[tuple[str, Compaction], ...] = ()
    sensitivity: Sensitivity | None = None


class Extent(Struct, frozen=True):
    """How much is computed: ``seeds`` draws of a fleet, whether it is compacted and its assumptions are varied, and by
    how many processes."""

    seeds: int = 1
    compaction: bool = False
    sensitivity: bool = False
    workers: int = 1


class _Draw(Struct, frozen=True):
    question: Question
    mix: Mix
    seed: int
    heuristic: Heuristic
    platforms: tuple[str, ...]


def study_fleet(name: str, question: Question, extent: Extent, mix: Mix | None = None) -> Fleet:
    """Return the study of a fleet; one that was drawn is drawn again from the ``mix``, as often as is asked for."""
    outcome = simulate(question)
    base = next(one for one in outcome.hosted if one.platform == outcome.base)
    heuristic = min(base.packed, key=lambda one: one.hosts).heuristic
    platforms = tuple(one.platform for one in outcome.hosted)
    seeds = range(question.seed + 1, question.seed + extent.seeds) if mix is not None else ()
    draws = [_Draw(question, mix, seed, heuristic, platforms) for seed in seeds] if mix is not None else []
    counts = spread(_count, draws, extent.workers)
    first = [int(one.hosts.value) for one in outcome.hosted]
    redrawn = tuple(
        Redrawn(platform, tuple(each[index] for each in (first, *counts))) for index, platform in enumerate(platforms)
    )
    return Fleet(
        name,
        outcome,
        redrawn if counts else (),
        _compact(question, outcome, extent) if extent.compaction else (),
        _vary(question, outcome, heuristic, extent.workers) if extent.sensitivity else None,
    )


def _count(draw: _Draw) -> list[int]:
    """Return the hosts on each platform for a fleet drawn from another seed."""
    question = replace(draw.question, servers=draw_servers(draw.mix, draw.question.servers.count, draw.seed))
    base = find_base(question.footprints)
    bare = list_demands(question.servers)
    similar = group(bare, MOST_SIZES)
    counts = []
    for footprint in (one for one in question.footprints if one.platform in draw.platforms):
        hosting = compute_hosting(take_estimates(footprint), take_estimates(base))
        room = make_room(question.host, question.fit, hosting)
        counts.append(count_hosts(bare, similar, hosting, room, draw.heuristic))
    return counts


def _compact(question: Question, outcome: Outcome, extent: Extent) -> tuple[tuple[str, Compaction], ...]:
    compacted = []
    for one in outcome.hosted:
        room = make_room(question.host, question.fit, one.hosting)
        cell = compact(question.servers, one.hosting, room, question.seed, extent.workers)
        compacted.append((one.platform, cell))
    return tuple(compacted)


def _vary(question: Question, outcome: Outcome, heuristic: Heuristic, workers: int) -> Sensitivity | None:
    """Return what the ratio of the first other platform depends on; None where there is none."""
    hosted = {one.platform for one in outcome.hosted}
    compared = choose_compared([one for one in question.footprints if one.platform in hosted])
    return find_sensitivity(question, compared, heuristic, workers) if compared else None
