"""Servers that are drawn: their means are those asked for, the seed decides, and what cannot be drawn is refused."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.fleet.distributions import (
    AZURE_UTILISATION,
    GIB,
    TALK,
    Mix,
    Size,
    application_mix,
    azure_mix,
    draw_servers,
    find_variation,
    talk_mix,
)


@pytest.mark.parametrize("utilisation", TALK)
def test_the_talks_servers_are_used_as_the_talk_says(utilisation: float) -> None:
    servers = draw_servers(talk_mix(utilisation), 50_000, 1)
    assert servers.utilisation == pytest.approx(utilisation, rel=0.02)
    assert servers.memory_bytes.mean() == pytest.approx(2.25 * GIB, rel=0.02)
    assert (servers.cpu_sd / servers.cpu_mean).mean() == pytest.approx(find_variation(2.0))


def test_azures_servers_have_its_shares() -> None:
    servers = draw_servers(azure_mix(), 100_000, 1)
    shares = {int(cores): float((servers.cores == cores).mean()) for cores in np.unique(servers.cores)}
    assert shares[2] == pytest.approx(0.589, abs=0.02) and shares[4] == pytest.approx(0.304, abs=0.02)
    assert sum(shares.values()) == pytest.approx(1)
    assert (servers.cpu_mean / servers.cores).mean() == pytest.approx(AZURE_UTILISATION, rel=0.05)


def test_batches_are_equal_servers_that_come_together() -> None:
    servers = draw_servers(azure_mix(), 5000, 2)
    changes = int((np.diff(servers.cpu_mean) != 0).sum())
    assert servers.count == 5000 and 500 < changes < 3000


def test_zombies_do_next_to_nothing() -> None:
    servers = draw_servers(replace(talk_mix(0.12), zombies=0.3), 20_000, 1)
    busy = servers.cpu_mean / servers.cores
    without = draw_servers(talk_mix(0.12), 20_000, 1)
    idle = (busy < 0.03).mean() - (without.cpu_mean / without.cores < 0.03).mean() * 0.7
    assert idle == pytest.approx(0.3, abs=0.02)
    assert any("30%" in line for line in servers.assumptions)


def test_the_seed_decides() -> None:
    one, same, other = (draw_servers(talk_mix(0.05), 100, seed) for seed in (1, 1, 2))
    assert (one.cpu_mean == same.cpu_mean).all() and (one.cpu_mean != other.cpu_mean).any()


def test_servers_of_the_application_are_all_alike() -> None:
    servers = draw_servers(application_mix(0.08, 44 * 2**20, cores=2), 10, 1)
    assert set(servers.cpu_mean) == {0.16} and set(servers.memory_bytes) == {44.0 * 2**20}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": (Size(0.5, 4, GIB), Size(0.4, 8, GIB))}, "the shares of its sizes sum to 0.9"),
        ({"sizes": ()}, "sum to 0"),
        ({"sizes": (Size(1.0, 0, GIB),)}, "a size has no processors"),
        ({"sizes": (Size(1.0, 4, -1),)}, "a size has no processors, or no memory"),
        ({"utilisation": 0.0}, "utilisation is 0"),
        ({"utilisation": 1.2}, "utilisation is 1.2"),
        ({"zombies": 1.5}, "zombies is 1.5"),
        ({"peak_to_mean": 0.5}, "peak to mean of 0.5"),
        ({"memory_cv": -1.0}, "variation of memory of -1"),
        ({"batch_shape": 0.9}, "has no mean"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        draw_servers(replace(talk_mix(0.05), **changes), 10, 1)


@pytest.mark.parametrize("count", [0, -5, 10_000_000])
def test_a_fleet_has_a_size(count: int) -> None:
    with pytest.raises(UsageError, match=f"a fleet of {count} servers"):
        draw_servers(Mix("m", (Size(1.0, 4, GIB),), 0.05), count, 1)
