"""Thinning: no more than can be seen, and what must be seen is kept."""

from __future__ import annotations

from statistics import fmean

import pytest

from reports.thinning import pick_evenly, thin_ranks, thin_series

SERIES = [(float(at), 9.0 if at == 517 else 1.0) for at in range(1000)]


def test_what_is_few_stays_as_it_is() -> None:
    assert thin_series(SERIES[:5], 5, max) == SERIES[:5]
    assert pick_evenly([1, 2], 2) == [1, 2] and thin_ranks([2, 1], 2) == [1, 2]


@pytest.mark.parametrize("most", [2, 3, 7, 150, 999])
def test_a_peak_stays_and_a_mean_too(most: int) -> None:
    peaks, means = thin_series(SERIES, most, max), thin_series(SERIES, most, fmean)
    assert len(peaks) == len(means) == most
    assert max(value for _, value in peaks) == 9
    assert fmean(value for _, value in means) == pytest.approx(1.008, abs=0.01)
    assert peaks[-1][0] == 999 and [t_s for t_s, _ in peaks] == sorted(t_s for t_s, _ in peaks)


def test_the_first_and_the_last_are_picked() -> None:
    assert pick_evenly(range(100), 3) == [0, 50, 99]
    assert thin_ranks([5, 1, 3, 2, 4], 3) == [1, 3, 5]
