"""The probes' image, and attacks in a run's lab that leave nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest

from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.ladder.attack import attack
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform
from testbed.platforms.rungs.platform import RungPlatform
from testbed.probes.build import PROGRAM
from testbed.probes.model import Outcome, Probe
from testbed.probes.objects import read_left
from testbed.rungs.model import Rung

Attack = Callable[..., dict[str, Outcome]]


@pytest.fixture
def probe_image(tmp_path: Path) -> Image:
    """An image of the probes' program, which no store has."""
    layer = tmp_path / "layer"
    layer.mkdir()
    shutil.copy2(PROGRAM.build(), layer / "testbed-probe")
    return Image("testbed/probe", "sha256:0", ImageConfig(), (Layer("sha256:1", layer),))


@pytest.fixture
def attacked(probe_image: Image, cgroup_parent: str, run_name: str) -> Iterator[Attack]:
    """Attacks a platform by name, or a rung that has an isolation without some of its walls; outcomes by probe."""
    lease = Path("/run/testbed") / run_name
    with Lab() as lab:
        made: list[PeerPlatform | ContainerPlatform] = []

        def run(
            name: str, rung: Rung | None, probes: Sequence[Probe] | None = None, without: Collection[str] = ()
        ) -> dict[str, Outcome]:
            platform: PeerPlatform | ContainerPlatform
            if name == "container":
                platform = ContainerPlatform(run_name, lab)
            elif name in PEERS:
                platform = PeerPlatform(PEERS[name], run_name, lease, lab)
                platform.prepare_program()
            else:
                assert rung is not None
                platform = RungPlatform(rung, run_name, lease, lab, without)
                platform.prepare_rung()
            made.append(platform)
            try:
                return {one.probe: one for one in attack(platform, rung, lab, probe_image, lease, probes=probes)}
            finally:
                platform.close()

        yield run
    assert read_left(lease) == () and list(lease.glob("canaries-*")) == []
    assert list(Path("/").glob(".testbed-probe-*")) == []
