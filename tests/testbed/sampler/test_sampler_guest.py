"""The sampler on cgroup v2: a guest that is a host of containers works off a list of checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.images.model import Image
from testbed.sampler.build import HERE, SAMPLER
from tests.runtime.check_guest import layers_of_checks, outcomes_on_version_two
from tests.testbed.sampler.sampler_checks import CHECKS

pytestmark = [pytest.mark.root, pytest.mark.vm]

# On an idle host the checks take 40 s; this is for a busy one.
TIMEOUT_S = 280.0
_PROGRAM = "tests.testbed.sampler.sampler_checks"


def layers(directory: Path) -> Image:
    """The checks, and of the testbed the sampler alone: it needs nothing but the runtime."""
    image = layers_of_checks(directory, "sampler_checks.py", ("sleep",), Path(__file__).parent)
    target = directory / "checks" / "testbed" / "sampler"
    target.mkdir(parents=True)
    for source in (*HERE.glob("*.py"), SAMPLER.build()):
        shutil.copy2(source, target)
    return image


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """One boot for all checks."""
    return outcomes_on_version_two(layers, _PROGRAM, TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_version_two(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
