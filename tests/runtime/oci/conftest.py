"""A host whose planners are a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.command_line import Runtime
from tests.runtime.planner_host import PlannerHost, planner_host


@pytest.fixture
def host(oci: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlannerHost]:
    monkeypatch.delenv("TESTBED_PLANNER", raising=False)
    oci.shell("exec sleep 1000")
    with planner_host(oci) as found:
        yield found
