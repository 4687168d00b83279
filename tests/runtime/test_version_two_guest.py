"""cgroup v2 for real: a guest that is a host of containers, where no other version is, works off a list of checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.images.model import Image
from tests.runtime.check_guest import layers_of_checks, outcomes_on_version_two
from tests.runtime.version_two_checks import CHECKS

pytestmark = [pytest.mark.root, pytest.mark.vm]

# On an idle host the checks take 25 s; this is for a busy one.
TIMEOUT_S = 240.0
_PROGRAM = "tests.runtime.version_two_checks"


def layers(directory: Path) -> Image:
    commands = ("sh", "true", "cat", "sleep", "dd", "mknod", "head", "wc", "setsid")
    image = layers_of_checks(directory, "version_two_*.py", commands)
    (directory / "busybox" / "tmp").mkdir()
    return image


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """One boot for all checks. Some are of what happens at the same time."""
    return outcomes_on_version_two(layers, _PROGRAM, TIMEOUT_S, processors=2)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_version_two(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
