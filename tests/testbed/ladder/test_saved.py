"""Copies of saved machines: what is attacked and what is priced is saved for that, and is a copy like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.model import Image
from runtime.images.store import Store
from runtime.lease import lease
from testbed.lab import BRIDGE, Lab
from testbed.ladder.attack import attack
from testbed.ladder.gauge import PORT, Gauge, make_instance
from testbed.ladder.image import ensure_gauge_image
from testbed.platforms.restored import RestoredPlatform
from testbed.probes.read import read_probes
from testbed.qemu.variants import VARIANTS
from testbed.rungs.model import Rung, Statement

pytestmark = [pytest.mark.root, pytest.mark.vm]


@pytest.fixture
def prepared(home: Path, probe_image: Image, run_name: str) -> Iterator[tuple[RestoredPlatform, Image, Path]]:
    gauge = ensure_gauge_image(Store(home / "images"), print)
    with lease(run_name) as scratch:
        platform = RestoredPlatform(scratch, BRIDGE, run_name, VARIANTS["vm-restored"])
        try:
            platform.prepare_images((probe_image, gauge))
            yield platform, gauge, scratch
        finally:
            platform.close()


def test_a_copy_is_attacked_and_priced(prepared: tuple[RestoredPlatform, Image, Path], probe_image: Image) -> None:
    platform, gauge, scratch = prepared
    forbids = (Statement(("names", "processes", "signals"), "ours", "as it is tested here"),)
    rung = Rung("restored", "Restored", 2016, "machines", "a copy", {}, forbids=forbids)
    wanted = ("names", "signals", "resources-processors", "resources-disk")
    probes = [probe for probe in read_probes() if probe.kind in wanted or probe.name in wanted]
    with Lab() as lab:
        outcomes = attack(platform, rung, lab, probe_image, scratch, probes=probes)
        assert {one.verdict for one in outcomes} <= {"blocked", "untestable", "permitted"}
        assert sum(one.verdict == "blocked" for one in outcomes) >= 4
        processors = next(one for one in outcomes if one.probe == "resources-processors")
        assert processors.verdict == "blocked" or processors.words.startswith("the host had "), processors
        log = scratch / "gauge.log"
        platform.save_for(make_instance("gauge", 0, gauge, lab.link(0, 0), log), (PORT,))
        with Gauge(platform, make_instance("priced", 0, gauge, lab.link(0, 0), log), 60) as copy:
            assert copy.started_s > 0 and (copy.read_memory_bytes() or 0) > 0
            assert copy.ask("forks 5") > 0
