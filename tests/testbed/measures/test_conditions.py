"""What services wait for before they are started."""

from __future__ import annotations

import pytest

from runtime.errors import WorkloadError
from runtime.spec import Resources
from testbed.compose.model import Dependency, Healthcheck, Service
from testbed.measures.conditions import (
    Awaited,
    is_checked,
    judge,
    list_awaited,
    list_completing,
    list_held,
    list_substituted,
)

DB = Service("db", Resources(), healthcheck=Healthcheck(("true",)))
SETUP = Service("setup", Resources(), depends_on=(Dependency("db"),))
WEB = Service(
    "web",
    Resources(),
    depends_on=(Dependency("db", "service_healthy"), Dependency("setup", "service_completed_successfully")),
)


def test_what_is_awaited() -> None:
    assert list_awaited(SETUP) == ()
    assert [str(one) for one in list_awaited(WEB)] == ["db: service_healthy", "setup: service_completed_successfully"]
    assert list_completing((DB, SETUP, WEB)) == ("setup",)
    assert is_checked(DB) and not is_checked(WEB)
    assert not is_checked(Service("x", Resources(), healthcheck=Healthcheck(disabled=True)))


def test_what_stands_for_a_check_is_told() -> None:
    (line,) = list_substituted((DB, SETUP, WEB))
    assert line.startswith("db: healthy as soon as its ports are open")
    assert list_substituted((DB, SETUP)) == ()


def test_conditions_come_true_or_never_will() -> None:
    healthy, completed = list_awaited(WEB)
    assert judge(healthy, "healthy", None) and not judge(healthy, "starting", None) and not judge(healthy, None, None)
    assert judge(completed, None, 0) and not judge(completed, None, None)
    with pytest.raises(WorkloadError, match="setup, which others wait for, ended with status 2"):
        judge(completed, None, 2)
    with pytest.raises(WorkloadError, match="db, which others wait for, is unhealthy"):
        judge(healthy, "unhealthy", None)
    with pytest.raises(WorkloadError, match="db, which others wait for to be healthy, ended with status 0"):
        judge(Awaited("db", "service_healthy"), "healthy", 0)


def test_who_is_held_where_all_are_started_as_one() -> None:
    """From the first that waits for another on: what comes after it may depend on that one in turn."""
    proxy = Service("proxy", Resources(), depends_on=(Dependency("web"),))
    assert list_held((DB, SETUP, WEB, proxy)) == ("web", "proxy")
    assert list_held((DB, SETUP)) == ()
