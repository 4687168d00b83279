"""What services wait for in one measured guest: no port for commands, so what is healthy is told by its open port."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import WorkloadError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Resources
from testbed.compose.model import Dependency, Healthcheck
from testbed.lab import Lab
from testbed.measures.application import Application
from testbed.measures.context import RunContext
from testbed.platforms.vm import VmPlatform
from testbed.results import RunFolder
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo

pytestmark = [pytest.mark.root, pytest.mark.vm]
SETTINGS = Settings(
    trials=1,
    ready=Ready("web", 80, "/", 200, "ready", timeout_s=60.0, timeout_vm_s=60.0),
    load=Load("web", 80, "GET", "/", (1.0,), duration_s=1.0, warmup_s=0.1, connections=1),
    slo=Slo(p99_ms=150.0, error_fraction=0.01),
    density=Density(rate_per_s=1.0, settle_s=0.1, window_s=0.4, cap=1),
)
DB = "busybox sleep 0.4; echo opening; exec busybox nc -ll -p 79 -e busybox true"
WEB = "exec busybox nc -ll -p 80 -e cat /answer"


@pytest.fixture
def layer(layer: Path) -> Path:
    (layer / "answer").write_text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready")
    return layer


def make_context(folder: Path, layer: Path, platform: VmPlatform, lab: Lab, setup: str) -> RunContext:
    """Return what is around services of which one waits for two others, and the last for that one."""

    def service(name: str, script: str, **more: object) -> Service:
        return Service(name, Resources(96 << 20, 0.5, 16), command=("sh", "-c", script), **more)  # type: ignore[arg-type]

    wanted = (Dependency("db", "service_healthy"), Dependency("setup", "service_completed_successfully"))
    services = (
        service("db", DB, ports=(79,), healthcheck=Healthcheck(("false",))),
        service("setup", setup, depends_on=(Dependency("db"),)),
        service("web", WEB, ports=(80,), depends_on=wanted),
        service("proxy", "echo began; exec busybox sleep 600", depends_on=(Dependency("web"),)),
    )
    scenario = Scenario("waits", Path(), services, SETTINGS, SETTINGS)
    image = Image("test/waits", "sha256:x", ImageConfig(env=("PATH=/bin",)), (Layer("sha256:busybox", layer),))
    images = {one.name: image for one in services}
    results = RunFolder.create(folder / "results", "run", {"run": "run", "scenario": "waits"})
    return RunContext(scenario, SETTINGS, images, {platform.name: platform}, lab, results, 1, lambda line: None)


@pytest.mark.parametrize("kind", ["vm-pod", "vm-containers"])
def test_services_in_one_guest_wait_for_each_other(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path, kind: str
) -> None:
    platform = make_vm(kind)
    assert not platform.executes
    with Lab() as lab:
        context = make_context(tmp_path, layer, platform, lab, "busybox sleep 0.2; echo set up")
        with Application(context, platform, 0, "t1") as application:
            (instance,) = application.instances
            assert instance.held == ("web", "proxy") and instance.leaving == ("setup",)
            assert application.status("setup") == 0 and application.status("web") is None
            parts = platform.memory_parts(instance)
            phases = application.timeline.services
        lines = instance.log.read_text().splitlines()
    assert "guest_kernel" in parts, "the console tells of the memory all the same"

    def when(text: str) -> float:
        (line,) = (line for line in lines if re.fullmatch(rf"\[[\d.]+\] (\w+: )?{text}\r?", line))
        return float(line[1:].partition("]")[0])

    web_s = phases["web"]["first_process"] / 1e9
    assert max(when("opening"), when("testbed: setup: left: 0")) < web_s < phases["proxy"]["first_process"] / 1e9
    assert when("set up") > phases["db"]["first_process"] / 1e9
    if kind == "vm-pod":
        with Lab() as lab:
            context = make_context(tmp_path / "failing", layer, platform, lab, "exit 4")
            failing = Application(context, platform, 0, "t2")
            with pytest.raises(WorkloadError, match="setup has ended: exit status 4"), failing:
                pass
        assert "began" not in failing.instances[0].log.read_text()
