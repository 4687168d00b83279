"""Which processors a guest is pinned to, and which topology it is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.qemu.pinning import (
    Position,
    Topology,
    choose_processors,
    find_topology,
    make_pinning,
    read_positions,
)

# Two packages of two cores of two threads, numbered as Linux does: threads of a core are 4 apart.
HOST = {number: Position(number % 4 // 2, number % 2) for number in range(8)}


@pytest.mark.parametrize(
    ("taken", "count", "expected"),
    [
        ((), 1, (0,)),
        ((0,), 1, (4,)),  # the same core's other thread is as idle as any
        ((), 2, (0, 4)),
        ((), 4, (0, 4, 1, 5)),  # a whole package before the other one
        ((0, 4, 1, 5), 4, (2, 6, 3, 7)),
        (range(8), 2, (0, 4)),
        ((), 9, (0, 0, 4, 1, 5, 2, 6, 3, 7)),
        ((99,), 1, (0,)),  # no longer there
    ],
)
def test_the_least_used_are_chosen_neighbours_first(
    taken: tuple[int, ...], count: int, expected: tuple[int, ...]
) -> None:
    assert choose_processors(HOST, taken, count) == expected


@pytest.mark.parametrize(
    ("processors", "topology"),
    [
        ((0,), Topology(1, 1, 1)),
        ((0, 4), Topology(1, 1, 2)),
        ((0, 1), Topology(1, 2, 1)),
        ((0, 2), Topology(2, 1, 1)),
        ((0, 4, 1, 5), Topology(1, 2, 2)),
        (tuple(range(8)), Topology(2, 2, 2)),
        ((0, 4, 1), Topology(1, 3, 1)),  # no regular one
        ((0, 1, 2), Topology(1, 3, 1)),
        ((0, 0), Topology(1, 2, 1)),  # one processor for both
    ],
)
def test_the_guest_is_shown_what_its_processors_are(processors: tuple[int, ...], topology: Topology) -> None:
    assert find_topology(HOST, processors) == topology
    assert topology.sockets * topology.cores * topology.threads == len(processors)


def test_the_host_is_read(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    assert set(read_positions()) == allowed
    assert read_positions(tmp_path) == {number: Position(0, number) for number in allowed}, "nothing is said of them"
    pinning = make_pinning((), 1)
    assert pinning.processors == (min(allowed),) and pinning.topology == Topology(1, 1, 1)
