"""A fleet before and after: what is saved, how sure that is, and what is said when it cannot be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.fleet.compaction import compact
from testbed.fleet.demands import Fit, Host, make_room
from testbed.fleet.distributions import Mix, Size, draw_servers, talk_mix
from testbed.fleet.draws import find_ends, make_interval
from testbed.fleet.packing import HEURISTICS
from testbed.fleet.power import HOURS_A_YEAR, PowerModel, Prices
from testbed.fleet.sensitivity import SAMPLE, choose_compared, find_sensitivity
from testbed.fleet.simulate import Question, Spares, simulate
from testbed.fleet.study import Extent, study_fleet
from testbed.footprints import Footprint
from tests.testbed.fleet.conftest import footprint

HOST = Host(16, 128 * 2**30)


@pytest.fixture
def question(container: Footprint, machine: Footprint) -> Question:
    return Question(draw_servers(talk_mix(0.08), 600, 1), (container, machine), HOST, draws=80)


def test_the_difference_that_was_measured_is_carried_through_as_an_interval(question: Question) -> None:
    outcome = simulate(question)
    base, machine = outcome.hosted
    assert (outcome.base, base.platform, machine.platform) == ("container", "container", "vm")
    assert [one.heuristic for one in base.packed] == list(HEURISTICS)
    for one in outcome.hosted:
        assert one.bound.hosts <= one.hosts.value == min(each.hosts for each in one.packed)
        assert one.own <= one.utilisation < 0.9 and 0 < one.memory < 0.9
    (pair,) = outcome.pairs
    assert pair.ratio.is_interval and pair.ratio.low is not None and pair.ratio.high is not None
    assert 1 < pair.ratio.low < pair.ratio.value < pair.ratio.high < 2
    # CPU binds, and a request costs 1.3 times as much: give or take 10 % on either side.
    assert machine.hosting.cpu_factor == pytest.approx(1.3) and pair.ratio.value == pytest.approx(1.3, abs=0.1)


def test_a_wider_footprint_makes_a_wider_interval_and_few_trials_none(question: Question, container: Footprint) -> None:
    def width(machine: Footprint) -> float:
        (pair,) = simulate(replace(question, footprints=(container, machine))).pairs
        assert pair.ratio.low is not None and pair.ratio.high is not None
        return pair.ratio.high - pair.ratio.low

    assert width(footprint("vm", 290, 1.3, spread=0.3)) > width(footprint("vm", 290, 1.3, spread=0.05))
    few = simulate(replace(question, footprints=(container, footprint("vm", 290, 1.3, n=2))))
    assert not few.pairs[0].ratio.is_interval and "CPU time per request" in few.hosted[1].without_interval


def test_an_interval_whose_end_fits_on_no_host_is_none_and_says_why(question: Question, container: Footprint) -> None:
    large = draw_servers(Mix("large", (Size(1.0, 16, 2**30),), 0.3, concentration=0), 20, 1)
    unsure = footprint("vm", 44, 1.0, spread=0.5)
    outcome = simulate(replace(question, servers=large, footprints=(container, unsure)))
    for interval in (outcome.hosted[1].hosts, outcome.pairs[0].ratio):
        assert (interval.low, interval.high) == (None, None) and "fits on no host" in interval.why


def test_the_same_question_has_the_same_answer(question: Question) -> None:
    assert simulate(question) == simulate(question)


def test_power_and_cost_are_those_of_the_stated_model(question: Question) -> None:
    power, prices = PowerModel(100, 200, 300, 500), Prices(10, 20, 0.5)
    outcome = simulate(replace(question, power=power, prices=prices, spares=Spares(2, 10)))
    used, before = outcome.hosted[0], outcome.before
    assert before.watts == pytest.approx(600 * (100 + 100 * outcome.utilisation))
    assert before.cost_year == pytest.approx(600 * 10 + before.watts / 1000 * HOURS_A_YEAR * 0.5)
    assert used.machines == used.hosts.value + used.spare and used.spare == 2 * -(-used.hosts.value // 10)
    assert used.bill.watts == pytest.approx(used.machines * (300 + 200 * used.utilisation))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"power": PowerModel(300, 200, 1, 2)}, "idle first, then peak"),
        ({"prices": Prices(kwh=-1.0)}, "negative price"),
        ({"fit": Fit(headroom=0.995)}, "fit on no host|leaves no memory"),
        ({"fit": Fit(headroom=1.0)}, "leaves no room"),
        ({"host": Host(0.5, 2**30)}, "servers fit on no host of 0.5 processors and 1 GiB: server"),
    ],
)
def test_what_cannot_be_simulated_is_refused(question: Question, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        simulate(replace(question, **changes))


def test_an_emulator_that_is_too_slow_is_left_out_and_named(question: Question, container: Footprint) -> None:
    slow = footprint("vm-tcg", 400, 40.0, emulated=True)
    outcome = simulate(replace(question, footprints=(container, slow)))
    assert [one.platform for one in outcome.hosted] == ["container"] and not outcome.pairs
    ((label, why),) = outcome.left_out
    assert label == slow.label and "servers fit on no host" in why
    with pytest.raises(UsageError, match="fit on no host"):  # hardware that is too slow is an answer, and no exception
        simulate(replace(question, footprints=(container, replace(slow, emulated=False))))


def test_what_is_larger_takes_more_hosts(question: Question, container: Footprint) -> None:
    heavy = footprint("vm-heavy", 9000, 1.0)
    outcome = simulate(replace(question, footprints=(container, footprint("vm", 290, 1.0), heavy)))
    base, machine, large = (one.hosts.value for one in outcome.hosted)
    assert base <= machine < large and outcome.hosted[2].bound.binds == "memory"


def test_sensitivity_moves_as_the_assumption_does(question: Question, machine: Footprint) -> None:
    found = find_sensitivity(question, machine, "as they come")
    assert found.servers == 600 <= SAMPLE and found.central.ratio is not None
    swings = {one.name: one for one in found.swings}
    assert [one.width for one in found.swings] == sorted((one.width for one in found.swings), reverse=True)
    cpu = swings["CPU that hosting takes, times"]
    assert cpu.low.ratio is not None and cpu.high.ratio is not None
    assert cpu.low.ratio < found.central.ratio < cpu.high.ratio
    curve = next(one for one in found.curves if one.name.startswith("CPU"))
    assert curve.points[0].ratio == pytest.approx(1.0, abs=0.12)  # without an overhead of CPU little is left
    load = next(one for one in found.curves if one.name.startswith("load"))
    hosts = [one.base_hosts for one in load.points if one.base_hosts is not None]
    assert hosts == sorted(hosts)


def test_sensitivity_says_where_nothing_fits(question: Question, machine: Footprint) -> None:
    found = find_sensitivity(replace(question, host=Host(6, 24 * 2**30)), machine, "as they come")
    host = next(one for one in found.curves if one.name.startswith("size of a host"))
    assert host.points[0].ratio is None and host.points[-1].ratio is not None


def test_the_compared_platform_is_one_that_is_not_emulated(container: Footprint, machine: Footprint) -> None:
    emulated = footprint("vm-tcg", 400, 2.0, emulated=True)
    assert choose_compared((container, emulated, machine)) is machine
    assert choose_compared((container, emulated)) is emulated and choose_compared((container,)) is None


def test_cells_are_compacted_in_several_orders(question: Question) -> None:
    outcome = simulate(question)
    hosting = outcome.hosted[0].hosting
    found = compact(question.servers, hosting, make_room(HOST, question.fit, hosting), 1)
    assert found.servers == 600 and len(found.each) == 11 and found.each[0] >= outcome.hosted[0].bound.hosts
    assert found.each[0] <= found.hosts <= found.each[-1] <= found.each[0] + 3


def test_a_study_draws_again_and_varies(question: Question) -> None:
    found = study_fleet("8 %", question, Extent(3, compaction=True, sensitivity=True), talk_mix(0.08))
    assert [len(one.hosts) for one in found.redrawn] == [3, 3] and found.sensitivity is not None
    assert [name for name, _ in found.compaction] == ["container", "vm"]
    plain = study_fleet("8 %", question, Extent())
    assert (plain.redrawn, plain.compaction, plain.sensitivity) == ((), (), None) and plain.outcome == found.outcome


@pytest.mark.usefixtures("no_tracker")
def test_processes_give_the_same_answer(question: Question) -> None:
    small = replace(question, servers=draw_servers(talk_mix(0.08), 100, 1), draws=20)
    one, two = (study_fleet("x", small, Extent(3, workers=workers), talk_mix(0.08)) for workers in (1, 2))
    assert one == two
    with pytest.raises(UsageError, match="--workers 0"):
        study_fleet("x", small, Extent(3, workers=0), talk_mix(0.08))


def test_the_ends_leave_out_one_draw_in_forty_on_either_side() -> None:
    import numpy as np

    assert find_ends(np.arange(1000.0)) == (25, 974)
    assert make_interval(5, (5, 5), False).low is None
    assert make_interval(5, (4, 7), True) == make_interval(5, (7, 4), True)
