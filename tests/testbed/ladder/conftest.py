"""The probes' image, and attacks in a run's lab that leave nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.model import Image
from tests.testbed.ladder.walls import Attack, attacking, make_probe_image


@pytest.fixture
def probe_image(tmp_path: Path) -> Image:
    return make_probe_image(tmp_path / "layer")


@pytest.fixture
def attacked(probe_image: Image, cgroup_parent: str, run_name: str) -> Iterator[Attack]:
    with attacking(probe_image, run_name) as attack:
        yield attack
