"""Two streams of tests fail when one fails, and pass when one has nothing to do."""

from __future__ import annotations

import pytest

from tests.streams import verdict


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((5, 2), 2)]
)
def test_one_failure_is_enough(statuses: tuple[int, int], status: int) -> None:
    assert verdict(*statuses) == status
