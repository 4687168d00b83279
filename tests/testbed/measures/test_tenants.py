"""A neighbour in the application's own guest, for real: it takes all of the guest's memory, and that is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Resources
from testbed.lab import BRIDGE, Lab
from testbed.measures import neighbours
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.neighbours.build import NEIGHBOUR
from testbed.neighbours.image import PROGRAM, REFERENCE
from testbed.platforms.nested import ContainersInVmPlatform
from testbed.qemu.variants import VARIANTS
from testbed.results import RunFolder
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo
from testbed.scenario.neighbours import Neighbours
from tests import scratches
from tests.scratches import name_run

pytestmark = [pytest.mark.root, pytest.mark.vm]

MIB = 1 << 20
SETTINGS = Settings(
    trials=1,
    ready=Ready("web", 80, "/index.html", 200, "served", timeout_s=60.0, timeout_vm_s=60.0),
    load=Load("web", 80, "GET", "/index.html", (5.0,), duration_s=4.0, warmup_s=0.5, connections=4),
    slo=Slo(p99_ms=500.0, error_fraction=0.01),
    density=Density(rate_per_s=5.0, settle_s=0.1, window_s=0.4, cap=3),
    neighbours=Neighbours(("memory",), 5.0, 10.0),  # an emulated guest on a busy host is slow to fill its memory
)


@pytest.fixture
def images() -> Iterator[dict[str, Image]]:
    """A web server and the neighbour, on the store's file system, from which a disk is linked together."""
    run = name_run()
    folder = scratches.in_store(run)
    web, neighbour = folder / "web", folder / "neighbour"
    try:
        (web / "bin").mkdir(parents=True)
        (web / "srv").mkdir()
        shutil.copy2("/bin/busybox", web / "bin" / "busybox")
        (web / "srv" / "index.html").write_text("served")
        neighbour.mkdir()
        shutil.copy2(NEIGHBOUR.build(), neighbour / PROGRAM.lstrip("/"))
        serve = ImageConfig(cmd=("busybox", "httpd", "-f", "-p", "80", "-h", "/srv"), env=("PATH=/bin",))
        bad = ImageConfig(entrypoint=(PROGRAM,))
        yield {
            "web": Image("small/web", f"sha256:{run}", serve, (Layer(f"sha256:{run}w", web),)),
            REFERENCE: Image(REFERENCE, f"sha256:{run}n", bad, (Layer(f"sha256:{run}n", neighbour),)),
        }
    finally:
        shutil.rmtree(folder)


def test_what_the_guest_lacks_is_taken_from_the_neighbour_and_told(
    images: dict[str, Image],
    run_name: str,
    scratch: Path,
    cgroup_parent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "MACHINE_ROOM", Resources(memory_bytes=96 * MIB))  # soon full
    service = Service("web", Resources(64 * MIB, 1.0, 24), ports=(80,))
    scenario = Scenario("small", tmp_path, (service,), SETTINGS, SETTINGS)
    folder = RunFolder.create(tmp_path / "results", "run", {"run": "run", "scenario": "small"})
    platform = ContainersInVmPlatform(scratch, BRIDGE, run_name, VARIANTS["vm-containers"])
    disk: Path | None = None
    with Lab() as lab:
        try:
            try:
                platform.prepare(scenario, images)
            except PrerequisiteError as error:
                pytest.skip(f"no virtual machines: {error}")
            disk = platform.disk
            context = RunContext(scenario, SETTINGS, images, {platform.name: platform}, lab, folder, 1, print)
            run_trials(context, PlannedTrial(1, 1, platform.name, "neighbours", ("memory, limits off",)))
        finally:
            platform.close()
            if disk is not None:
                disk.unlink()
    (trial,) = folder.trials()
    assert trial.outcome in ("ok", "void"), trial.reason
    assert trial.parameters["shared"] == "guest kernel" and "lost" not in trial.parameters
    found = {metric.metric: metric.value for metric in trial.metrics}
    assert found["guest_killed"] >= 1 and found["neighbour_alive"] == 1, "its workers, for it took the most"
    assert found["survived"] == 1 and found["requests_ok"] > 0
    assert not {"neighbour_cpu", "neighbour_memory", "host_neighbour", "cpu_per_request"} & set(found)
    (log,) = folder.path.glob("logs/*")
    said = log.read_text()
    assert log.name == "t001-small.log", "one guest, and nothing beside it"
    assert "testbed: @neighbour: left: 0" in said and "testbed: web: ended" not in said
