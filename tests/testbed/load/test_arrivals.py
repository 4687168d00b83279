"""When requests are due, by each kind of schedule."""

from __future__ import annotations

import itertools
from bisect import bisect_left

import pytest

from testbed.load.arrivals import Piece, Schedule, count_requests, draw_arrivals, draw_poisson_arrivals, list_pieces

TRACE = Schedule("trace", trace=((0.0, 100.0), (2.0, 0.0), (3.0, 1000.0)))


def count_between(arrivals: list[int], begin_s: float, end_s: float) -> int:
    return bisect_left(arrivals, end_s * 1e9) - bisect_left(arrivals, begin_s * 1e9)


def test_arrivals_are_a_poisson_process_of_a_fixed_count() -> None:
    arrivals = draw_poisson_arrivals(rate_per_s=1000, duration_s=10, seed=11)
    assert arrivals == draw_poisson_arrivals(1000, 10, 11) != draw_poisson_arrivals(1000, 10, 12)
    assert len(arrivals) == 10_000
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0 and arrivals[-1] < 10e9
    gaps = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 0.95 < deviation / mean < 1.05, "exponential gaps have a coefficient of variation of one"


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("constant"), Schedule("ramp", 10.0), TRACE])
def test_the_seed_decides_and_the_count_is_fixed(schedule: Schedule) -> None:
    drawn = [draw_arrivals(schedule, 300.0, 4.0, seed, 1.0) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert (drawn[0] == drawn[2]) == (schedule.kind == "constant")
    assert {len(arrivals) for arrivals in drawn} == {count_requests(schedule, 300.0, 4.0, 1.0)}
    assert all(arrivals == sorted(arrivals) and 0 <= arrivals[0] and arrivals[-1] < 5e9 for arrivals in drawn)


def test_a_poisson_schedule_is_what_it_was() -> None:
    assert draw_arrivals(Schedule(), 50.0, 4.0, 9, 1.0) == draw_poisson_arrivals(50.0, 5.0, 9)


def test_constant_is_at_equal_distances() -> None:
    assert draw_arrivals(Schedule("constant"), 4.0, 1.0, 1) == [0, 250_000_000, 500_000_000, 750_000_000]


def test_a_ramp_grows_evenly_after_a_warm_up_at_its_beginning() -> None:
    ramp = Schedule("ramp", from_per_s=1000.0)
    assert list_pieces(ramp, 3000.0, 10.0, 2.0) == (Piece(2.0, 1000.0, 1000.0), Piece(10.0, 1000.0, 3000.0))
    assert count_requests(ramp, 3000.0, 10.0) == 20_000
    arrivals = draw_arrivals(ramp, 3000.0, 10.0, 3, 2.0)
    for begin_s, expected in ((0, 1000), (1, 1000), (2, 1100), (6, 1900), (11, 2900)):
        assert count_between(arrivals, begin_s, begin_s + 1) == pytest.approx(expected, rel=0.12)
    down = draw_arrivals(Schedule("ramp", from_per_s=2000.0), 1.0, 4.0, 3)
    assert count_between(down, 0, 1) > 5 * count_between(down, 3, 4)
    assert draw_arrivals(Schedule("ramp"), 100.0, 2.0, 1)[-1] < 2e9, "from nothing"


def test_a_trace_is_replayed_in_steps() -> None:
    arrivals = draw_arrivals(TRACE, 0.0, 5.0, 3, 1.0)
    assert count_requests(TRACE, 0.0, 5.0, 1.0) == len(arrivals) == 2300
    assert count_between(arrivals, 0, 1) == pytest.approx(100, rel=0.4), "the warm-up has the first rate"
    assert count_between(arrivals, 1, 3) == pytest.approx(200, rel=0.3)
    assert count_between(arrivals, 3, 4) == 0
    assert count_between(arrivals, 4, 6) == pytest.approx(2000, rel=0.05)
    assert count_requests(TRACE, 0.0, 2.5) == 200, "what is due later than the load lasts is left out"


def test_the_time_of_a_number_of_requests_is_the_inverse_of_their_number() -> None:
    piece = Piece(4.0, 10.0, 30.0)
    assert piece.find_time_s(0.0) == 0.0
    assert piece.find_time_s(piece.requests) == pytest.approx(4.0)
    assert piece.find_time_s(10 * 2 + 5 * 2**2 / 2) == pytest.approx(2.0)
