"""The shape of a server's day: its mean, its peak, and that servers are at different hours of it."""

from __future__ import annotations

import pytest

from testbed.load.arrivals import Schedule, count_requests, draw_arrivals, list_pieces
from testbed.load.shapes import Curve, find_phase, make_diurnal, normalise_trace, schedule_day


def mean(curve: Curve) -> float:
    ends = [*(begin for begin, _ in curve[1:]), 1.0]
    return sum(rate * (end - begin) for (begin, rate), end in zip(curve, ends, strict=True))


@pytest.mark.parametrize("peak", [1.2, 2.0, 2.5, 3.0, 5.0])
def test_a_day_has_its_peak_and_its_mean(peak: float) -> None:
    curve = make_diurnal(peak)
    assert max(rate for _, rate in curve) == pytest.approx(peak, rel=1e-6)
    assert mean(curve) == pytest.approx(1.0) and min(rate for _, rate in curve) > 0
    assert curve[12][1] == max(rate for _, rate in curve), "at noon"


def test_a_trace_has_a_mean_of_one_and_its_last_rate_lasts() -> None:
    assert normalise_trace([(0, 1), (10, 3)]) == ((0.0, 0.5), (0.5, 1.5))
    curve = normalise_trace([(0, 10), (60, 0), (90, 40)])
    assert mean(curve) == pytest.approx(1.0) and curve[1][1] == 0
    assert normalise_trace([(0, 7)]) == ((0.0, 1.0),)
    with pytest.raises(ValueError, match="all rates are 0"):
        normalise_trace([(0, 0), (5, 0)])


@pytest.mark.parametrize("curve", [make_diurnal(2.5), normalise_trace([(0, 10), (60, 0), (90, 40)])])
@pytest.mark.parametrize("server", range(6))
def test_a_window_is_a_whole_day_that_begins_at_the_server_s_hour(curve: Curve, server: int) -> None:
    phase = find_phase(server)
    schedule = schedule_day(curve, 80.0, 5.0, phase)
    begins = [begin for begin, _ in schedule.trace]
    assert begins[0] == 0.0 and begins == sorted(set(begins)) and begins[-1] < 5.0
    assert count_requests(schedule, 80.0, 5.0) == 400
    assert sum(piece.duration_s for piece in list_pieces(schedule, 80.0, 5.0)) == pytest.approx(5.0)
    under_way = [rate for begin, rate in curve if begin <= phase][-1]
    assert schedule.trace[0][1] == pytest.approx(80.0 * under_way)
    arrivals = draw_arrivals(schedule, 80.0, 5.0, seed=3, warmup_s=0.5)
    assert arrivals == sorted(arrivals) and arrivals[-1] < 5.5e9


def test_phases_lie_about_evenly_however_many_servers_there_are() -> None:
    for servers in (2, 3, 8, 21, 50):
        phases = sorted(find_phase(server) for server in range(servers))
        gaps = [after - before for before, after in zip(phases, [*phases[1:], phases[0] + 1], strict=True)]
        assert max(gaps) < 2.7 / servers


def test_without_a_curve_the_rate_is_even() -> None:
    assert schedule_day((), 80.0, 5.0, 0.3) == Schedule()
