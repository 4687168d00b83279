"""The fleet's benchmark: its rows are of whole fleets, and its validation says what was published."""

from __future__ import annotations

import pytest

from benchmarks.fleet import measure_apart, state_footprints, validate


@pytest.mark.usefixtures("no_tracker")
def test_a_fleet_is_measured_in_a_process_of_its_own() -> None:
    row = measure_apart("8", 100, state_footprints())
    assert row.servers == 100 and row.cpu_s > 0 and row.peak_bytes > 10e6
    assert row.bounds["container"] <= row.hosts["container"] <= row.hosts["vm"]
    assert set(row.distances) >= {"as they come", "dot product"} and min(row.distances.values()) >= 0


def test_what_was_published_stands_beside_what_is_simulated() -> None:
    vkernel, *ratios = validate()
    assert (
        vkernel.published.startswith("15.6") and vkernel.simulated.startswith("15.4") and "memory" in vkernel.simulated
    )
    assert [one.what.partition(": ")[2] for one in ratios] == ["15:1", "8:1", "3:1"]
