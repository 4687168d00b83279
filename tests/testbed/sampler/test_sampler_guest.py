"""The sampler on cgroup v2: a guest that is a host of containers works off a list of checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.sampler.build import HERE, build
from tests.runtime.check_guest import CHECKS as CHECKS_DIRECTORY
from tests.runtime.check_guest import layers_of_checks, outcomes_of
from tests.testbed.sampler.sampler_checks import CHECKS
from vm_images.container_host import INTERPRETER, ensure_host_image
from vm_images.disk import layer_name
from vm_images.plans.container_host import ContainerHost

pytestmark = [pytest.mark.root, pytest.mark.vm]

# On an idle host the checks take 40 s; this is for a busy one.
TIMEOUT_S = 280.0
_PROGRAM = "tests.testbed.sampler.sampler_checks"


def layers(directory: Path) -> Image:
    """The checks, and of the testbed the sampler alone: it needs nothing but the runtime."""
    image = layers_of_checks(directory, "sampler_checks.py", ("sleep",), Path(__file__).parent)
    target = directory / "checks" / "testbed" / "sampler"
    target.mkdir(parents=True)
    for source in (*HERE.glob("*.py"), build()):
        shutil.copy2(source, target)
    return image


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One boot for all checks."""

    def machine(host: Image) -> ContainerHost:
        args = (INTERPRETER, "-m", _PROGRAM)
        return ContainerHost(tuple(map(layer_name, host.layers)), args, CHECKS_DIRECTORY, "host", None, "")

    name = f"test-{tmp_path_factory.mktemp('work').parent.name}-sampler"
    host_image = partial(ensure_host_image, Store(store_root() / "images"), print)
    return outcomes_of(name, host_image, layers, machine, memory_mib=384, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_host_with_version_two(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"
