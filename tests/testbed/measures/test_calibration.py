"""The search for a rate: where it goes from what was seen, and what cannot be calibrated."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.measures.calibration import TOLERANCE, check_reach, choose_baseline, choose_rate
from testbed.scenario.consolidation import Consolidation
from testbed.scenario.model import Scenario, load
from testbed.scenario.new import create_scenario


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    create_scenario("tiny", tmp_path)
    return load("tiny", tmp_path)


@pytest.mark.parametrize(("idle", "cost"), [(0.0, 0.0004), (0.02, 0.0004), (0.0, 0.00002), (0.001, 0.01)])
@pytest.mark.parametrize("fraction", [0.05, 0.08, 0.12])
@pytest.mark.parametrize("noise", [0.0, 0.08])
def test_the_search_comes_to_the_rate(idle: float, cost: float, fraction: float, noise: float) -> None:
    chance, points = random.Random(3), list[tuple[float, float]]()
    for _ in range(8):
        rate = choose_rate(fraction, points, 5.0)
        points.append((rate, (idle + cost * rate) * chance.gauss(1, noise)))
        if abs(points[-1][1] / fraction - 1) <= TOLERANCE:
            break
    assert points[-1][0] == pytest.approx((fraction - idle) / cost, rel=0.02 + TOLERANCE + 3 * noise + idle / fraction)
    assert len(points) < 8


@pytest.mark.parametrize("spoilt", range(4))
@pytest.mark.parametrize("factor", [0.5, 1.6, 4.0])
@pytest.mark.parametrize("first", [2.0, 20.0, 100.0])
def test_one_look_beside_somebody_elses_work_does_not_lead_the_search_astray(
    spoilt: int, factor: float, first: float
) -> None:
    points = list[tuple[float, float]]()
    while not points or abs(points[-1][1] / 0.05 - 1) > TOLERANCE:
        rate = choose_rate(0.05, points, first)
        points.append((rate, (0.003 + 0.00105 * rate) * (factor if len(points) == spoilt else 1)))
        assert len(points) < 8, points


def test_no_rate_is_far_beyond_the_others() -> None:
    assert choose_rate(0.1, [], 5.0) == 5.0
    assert choose_rate(0.1, [(5.0, 0.0001)], 5.0) == 25.0
    assert choose_rate(0.1, [(5.0, 0.0)], 5.0) == 10.0
    assert choose_rate(0.1, [(50.0, 0.12), (60.0, 0.09)], 5.0) == 120.0, "it falls: noise"
    assert choose_rate(0.01, [(5.0, 0.2)], 5.0) == 1.0


def test_it_is_done_on_what_is_least_between_an_application_and_the_host() -> None:
    assert choose_baseline(["vm", "container", "process"]) == "process"
    assert choose_baseline(["vm", "container"]) == "container"
    assert choose_baseline(["vm-pod", "vm"]) == "vm-pod"


def test_limits_below_what_is_to_be_used_are_told(scenario: Scenario) -> None:
    check_reach(scenario.settings, scenario, 4)
    with pytest.raises(UsageError, match=r"tiny may use 1 processors, and cannot use 12 % of a machine with 64"):
        check_reach(scenario.settings, scenario, 64)
    smaller = replace(scenario.settings, consolidation=Consolidation(processors=2.0))
    check_reach(smaller, scenario, 64)
    (service,) = scenario.services
    unlimited = replace(scenario, services=(replace(service, resources=Resources()),))
    check_reach(scenario.settings, unlimited, 64)
