"""Walls that are taken away on purpose: each is one that the rung has, and nothing else changes with it."""

from __future__ import annotations

import pytest
from msgspec.structs import asdict

from runtime.errors import UsageError
from testbed.rungs.model import WALLS, Isolation
from testbed.rungs.read import find_rung, read_history
from testbed.rungs.walls import find_walls, remove_walls

EVERY = [
    (rung.name, wall)
    for rung in read_history().rungs
    if rung.isolation is not None
    for wall in sorted(find_walls(rung.isolation))
]


def whole(name: str) -> Isolation:
    isolation = find_rung(name).isolation
    assert isolation is not None
    return isolation


@pytest.mark.parametrize(("name", "wall"), EVERY)
def test_without_a_wall_only_that_one_is_missing(name: str, wall: str) -> None:
    rung = find_rung(name)
    before, after = whole(name), remove_walls(rung, {wall})
    assert before != after and wall in WALLS
    lost = find_walls(before) - find_walls(after)
    # What is only changed to is still a root, which can be taken away, too.
    assert lost == (set() if wall == "root" and before.root == "pivot_root" else {wall})
    assert len([key for key, value in asdict(before).items() if asdict(after)[key] != value]) <= 2


def test_a_sandbox_has_all_walls_that_there_are() -> None:
    missing = set(WALLS) - find_walls(whole("sandboxed"))
    assert missing == {"mount", "address", "kernel"}
    assert "address" in find_walls(whole("jail-2000"))


def test_several_are_taken_away_together() -> None:
    left = remove_walls(find_rung("sandboxed"), find_walls(whole("sandboxed")))
    assert left == Isolation("chroot", ("mount",))


@pytest.mark.parametrize(
    ("name", "walls", "said"),
    [
        ("chroot-1982", {"seccomp"}, "chroot-1982 without seccomp: the rung has no such wall"),
        ("docker-2013", {"moat"}, "docker-2013 without moat: no such wall is known"),
        ("docker-2013", {"mount"}, "it cannot be left out: the image's layers must be mounted somewhere"),
        ("docker-2013", {"kernel"}, "it cannot be left out: there is no container without its host's kernel"),
        ("container", {"pid"}, "container: it is not made of walls"),
    ],
)
def test_a_wall_that_is_not_there_is_refused(name: str, walls: set[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        remove_walls(find_rung(name), walls)
