"""What an explained plan says of the host's directories that services mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.explain import describe_mounts, mount_example
from testbed.scenario.model import Scenario, load

COMPOSE = """services:
  writer: {image: nginx, volumes: ["data:/data", "own:/own"]}
  web: {image: nginx, volumes: ["data:/data:ro"], ports: [80]}
volumes: {data: , own: }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    return load(str(tmp_path / "compose.yaml"), tmp_path)


@pytest.mark.parametrize(("platform", "driver"), [("container", "bind mounts"), ("vm-pod", "virtiofs, lent by a")])
def test_the_driver_of_what_services_share_is_named(scenario: Scenario, platform: str, driver: str) -> None:
    alone, shared = describe_mounts(scenario, platform).splitlines()
    assert alone == "What these mount for themselves is a further layer of their image: writer."
    assert f"a copy's own, by {driver}" in shared and shared.endswith(": volume data (writer, web).")


def test_the_plan_mounts_what_is_shared_and_nothing_else_of_the_host(scenario: Scenario) -> None:
    mounts = mount_example(scenario, "container")
    assert {name: [one.destination for one in of] for name, of in mounts.items()} == {
        "writer": ["/data"],
        "web": ["/data"],
    }
    assert ["ro" in one.options for (one,) in mounts.values()] == [False, True]
    with pytest.raises(UsageError, match="volume data is shared by writer and web, which vm-cloud cannot have"):
        mount_example(scenario, "vm-cloud")
