"""BCa intervals against published ones."""

from __future__ import annotations

import random

import pytest

from testbed.statistics import estimate_bca
from testbed.statistics.bootstrap import FEWEST_OF_BCA


def test_a_skewed_mean_has_an_interval_that_is_not_symmetric() -> None:
    import numpy as np

    chance = random.Random(1)
    values = [chance.expovariate(1) for _ in range(80)]
    estimate = estimate_bca(values, np.mean)
    assert estimate.value == pytest.approx(sum(values) / 80)
    assert estimate == estimate_bca(values, np.mean), "chance comes from a seed"
    assert estimate.high - estimate.value > 1.05 * (estimate.value - estimate.low)
    assert estimate.is_interval


def test_few_values_have_no_interval() -> None:
    import numpy as np

    estimate = estimate_bca([1.0, 2.0, 9.0], np.mean)
    assert (estimate.value, estimate.low, estimate.high, estimate.level) == (4, 1, 9, 0)
    same = estimate_bca([2.0] * FEWEST_OF_BCA, np.mean)
    assert (same.low, same.high) == (2, 2)
    with pytest.raises(ValueError, match="needs values"):
        estimate_bca([], np.mean)
