"""When services are started again."""

from __future__ import annotations

import pytest

from runtime.spec import Resources
from testbed.compose.model import Service
from testbed.measures.restarts import Restarts, is_wanted, wait_s


@pytest.mark.parametrize(
    ("policy", "status", "count", "wanted"),
    [
        ("no", 1, 0, False),
        ("always", 0, 9, True),
        ("unless-stopped", None, 0, True),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 99, True),
        ("on-failure:2", 1, 1, True),
        ("on-failure:2", 1, 2, False),
    ],
)
def test_the_policy_decides(policy: str, status: int | None, count: int, wanted: bool) -> None:
    assert is_wanted(policy, status, count) is wanted


def test_the_wait_doubles_and_begins_anew() -> None:
    assert [wait_s(count) for count in (0, 1, 2, 50)] == [0.1, 0.2, 0.4, 60.0]
    restarts = Restarts([Service("web", Resources(), restart="always")])
    assert restarts.may("web", 0)
    assert not restarts.is_due("web", 100) and not restarts.is_due("web", 100.05) and restarts.is_due("web", 100.2)
    restarts.note("web", 100.2)
    assert not restarts.is_due("web", 101) and not restarts.is_due("web", 101.15) and restarts.is_due("web", 101.25)
    restarts.note("web", 101.25)
    assert not restarts.is_due("web", 200) and restarts.is_due("web", 200.15), "it had run for long enough"


def test_how_it_ended_is_told() -> None:
    restarts = Restarts([Service("web", Resources(), restart="always"), Service("db", Resources(), restart="always")])
    assert restarts.tell() == ""
    for number, (service, ending) in enumerate([("web", "exit status 1"), ("db", ""), ("web", "exit status 137")]):
        restarts.is_due(service, 100 * number)
        restarts.note(service, 100 * number + 1, ending)
    assert restarts.tell() == (
        "; web has ended 2 times, the last time with: exit status 137; db has ended once, with: nobody knows how"
    )
