"""The speed of the host, by clocks that run as they do on hosts of other kinds."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from runtime import speed
from runtime.speed import MOST, REFERENCE_NS, Speed, is_over, measure, scale

MS = 1_000_000


def host(round_ns: int, *, tick_ns: int = 1, stalls: tuple[int, ...] = ()) -> tuple[Callable[[], int], list[int]]:
    """A clock that the work moves on, and how often it was done; the rounds of these numbers are preempted."""
    done: list[int] = []

    def clock() -> int:
        now_ns = len(done) * round_ns + sum(500 * MS for stall in stalls if stall < len(done))
        return now_ns // tick_ns * tick_ns

    return clock, done


def timed(round_ns: int, *, tick_ns: int = 1, stalls: tuple[int, ...] = ()) -> Speed:
    clock, done = host(round_ns, tick_ns=tick_ns, stalls=stalls)
    return measure(clock, lambda: done.append(1))


def test_an_ordinary_host_keeps_its_limits() -> None:
    assert timed(100_000) == Speed(100_000, 1.0)
    assert timed(REFERENCE_NS).factor == 1.0
    assert timed(30_000).factor == 1.0, "a faster host gets no shorter ones"


def test_limits_grow_with_a_host_that_is_emulated() -> None:
    assert timed(30 * REFERENCE_NS) == Speed(30 * REFERENCE_NS, 30.0)
    assert timed(10_000 * REFERENCE_NS).factor == MOST


def test_a_busy_host_is_not_a_slow_one() -> None:
    assert timed(100_000, stalls=(0, 1, 3)).factor == 1.0
    assert timed(100_000, stalls=(0, 1, 2, 3, 4)).factor == MOST, "unless it never lets us finish a round"


@pytest.mark.parametrize("round_ns", [100_000, 600_000])
def test_a_clock_of_coarse_ticks_shows_longer_rounds(round_ns: int) -> None:
    seen = timed(round_ns, tick_ns=4 * MS)
    assert round_ns * 0.4 <= seen.round_ns <= round_ns, "to a tick"


def test_a_clock_that_stands_still_leaves_limits_as_they_are() -> None:
    """As with -icount, should the clock be one that instructions do not move."""
    assert timed(0) == Speed(0, 1.0)


def test_a_clock_that_goes_back_is_no_clock() -> None:
    assert timed(-1000) == Speed(0, 1.0)


def test_this_host_is_measured_once_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    speed.measured.cache_clear()
    began_s = time.monotonic()
    first = speed.measured()
    assert time.monotonic() - began_s < 0.1 * first.factor
    assert first.round_ns > 1000 and first.factor >= 1
    monkeypatch.setattr(speed, "measure", lambda: Speed(0, 7.0))
    assert speed.measured() is first and scale(10) == 10 * first.factor


def test_nothing_is_measured_before_a_limit_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def slow(limit_s: float) -> float:
        asked.append(limit_s)
        return limit_s * 10

    monkeypatch.setattr(speed, "scale", slow)
    now_s = time.monotonic()
    assert not is_over(now_s, 5) and asked == []
    assert not is_over(now_s - 6, 5) and asked == [5]
    assert is_over(now_s - 51, 5)
