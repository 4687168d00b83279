"""Guests of Xen's for real: the reference machine, which Debian's Xen has booted, works off a list of checks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.testbed.machine.booted import outcomes_booted_as
from tests.testbed.machine.xen_checks import CHECKS

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.machine, pytest.mark.network]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What each check came to."""
    return outcomes_booted_as("xen", "xen_checks")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_domain_0(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
