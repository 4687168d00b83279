"""The gauge does what it is told on a platform, and is timed from outside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import WorkloadError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.launcher.times import time_steps
from runtime.spec import Resources
from testbed.lab import Lab
from testbed.ladder.build import GAUGE
from testbed.ladder.costs import list_steps, time_namespaces
from testbed.ladder.gauge import SERVICE, Gauge, make_instance
from testbed.ladder.image import PROGRAM
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.protocol import Instance

pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "layer").mkdir()
    shutil.copy2(GAUGE.build(), tmp_path / "layer" / PROGRAM[1:])
    return Image("test", "sha256:0", ImageConfig(entrypoint=(PROGRAM,)), (Layer("sha256:1", tmp_path / "layer"),))


def limit(instance: Instance, resources: Resources) -> Instance:
    return replace(instance, specs={SERVICE: replace(instance.spec, resources=resources)})


def test_what_it_does_takes_as_long_as_it_is_much(image: Image, run_name: str, tmp_path: Path) -> None:
    with Lab() as lab:
        platform = ContainerPlatform(run_name, lab)
        instance = make_instance("one", 0, image, lab.link(0, 0), tmp_path / "log")
        with time_steps() as times, Gauge(platform, instance, 30) as gauge:
            assert 0 < gauge.started_s < 30
            few, many = gauge.ask("calls 1000"), gauge.ask("calls 3000000")
            assert many > 50 * few > 0 and many > 3_000_000 * 10  # ns: no processor makes a call faster
            assert gauge.ask("forks 20") > gauge.ask("ping")
            assert 0 < (gauge.read_memory_bytes() or 0) < 64 << 20
            with pytest.raises(WorkloadError, match="answered b'refused"):
                gauge.ask("reboot 1")
        assert not platform.alive(instance)
    parts = {one.part for one in list_steps(times)}
    assert {"namespaces", "cgroup", "mounts and masks", "network", "filter", "exec"} <= parts


def test_a_child_that_the_kernel_refuses_is_no_figure(image: Image, run_name: str, tmp_path: Path) -> None:
    with Lab() as lab:
        platform = ContainerPlatform(run_name, lab)
        instance = make_instance("one", 0, image, lab.link(0, 0), tmp_path / "log")
        instance = limit(instance, Resources(memory_bytes=64 << 20, pids=1))
        with Gauge(platform, instance, 30) as gauge, pytest.raises(WorkloadError, match="refused"):
            gauge.ask("forks 1")


def test_one_that_ends_at_once_is_named_and_gone(image: Image, run_name: str, tmp_path: Path) -> None:
    with Lab() as lab:
        platform = ContainerPlatform(run_name, lab)
        instance = make_instance("one", 0, image, lab.link(0, 0), tmp_path / "log")
        spec = replace(instance.spec, process=replace(instance.spec.process, args=(PROGRAM, "nowhere", "1", "1")))
        with (
            pytest.raises(WorkloadError, match="it has ended: exit status 1"),
            Gauge(platform, replace(instance, specs={SERVICE: spec}), 30),
        ):
            pass
        assert not platform.cgroup(instance).exists()
    assert "no address" in (tmp_path / "log").read_text()


def test_each_kind_of_namespace_is_timed_by_itself() -> None:
    times = time_namespaces(8)
    assert len(times) == 9 and all(len(of) == 8 and min(of) > 0 for of in times.values())
    network, none = (min(times[f"clone3 with a new namespace: {kind}"]) for kind in ("network", "none"))
    assert network > none
