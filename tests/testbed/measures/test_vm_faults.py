"""Faults in real guests: each fails its own trial, with the reason and the last lines, and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.results import RunFolder, Trial
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.vm]

# A guest reaches its first process in 3 s; this is for a busy host.
BOOT_S = 60.0
HANGS_S = 5.0
SERVE = "echo serving; exec busybox nc -ll -p 80 -e cat /answer"
WAIT = "echo last words; exec sleep 600"
FLOOD = "i=0; while [ $i -lt 20 ]; do cat /page; i=$((i+1)); done; exec sleep 600"


@pytest.fixture
def layer(layer: Path) -> Path:
    (layer / "answer").write_text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready")
    (layer / "page").write_text("a line of the console's that is not short at all\n" * 100)
    return layer


@pytest.fixture
def image(layer: Path, run_name: str) -> Image:
    return Image("test/faults", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", layer),))


@pytest.fixture
def platform(home: Path, run_name: str, cgroup_parent: str, scratch: Path, image: Image) -> Iterator[VmPlatform]:
    made = VmPlatform(scratch, BRIDGE, run_name)
    try:
        made.prepare_images([image])
        yield made
    finally:
        made.close()


class Run:
    """Trials of one application, each with a script of its own and a fault that is done to its guest."""

    def __init__(self, platform: VmPlatform, image: Image, lab: Lab, folder: RunFolder) -> None:
        self._platform = platform
        self._context = (platform, image, lab)
        self.folder = folder
        self.told: list[str] = []
        self.befallen: list[str] = []

    def trial(
        self,
        number: int,
        script: str,
        fault: Callable[[int, Path], None] | None = None,
        timeout_s: float = BOOT_S,
        after_start: bool = False,
    ) -> Trial:
        """The record of a start of ``script``; ``fault`` gets QEMU's process id and the console's log.

        It befalls QEMU as soon as that is there, or ``after_start``, when libvirt has had its answers.
        """
        platform, image, lab = self._context
        settings = Settings(
            trials=1,
            ready=Ready("web", 80, "/", 200, "ready", timeout_s=timeout_s, timeout_vm_s=timeout_s),
            load=Load("web", 80, "GET", "/", (1.0,), duration_s=1.0, warmup_s=0.1, connections=1),
            slo=Slo(p99_ms=150.0, error_fraction=0.01),
            density=Density(rate_per_s=1.0, settle_s=0.1, window_s=0.4, cap=1),
        )
        limits = Resources(128 << 20, 1.0)
        service = Service("web", limits, ports=(80,), command=("sh", "-c", script))
        scenario = Scenario("faults", Path(), (service,), settings, settings)
        context = RunContext(
            scenario, settings, {"web": image}, {"vm": platform}, lab, self.folder, 1, self.told.append
        )
        name = f"t{number:03}-web"
        if fault is not None:
            threading.Thread(target=self._befall, args=(fault, name, after_start), daemon=True).start()
        run_trials(context, PlannedTrial(number, number, "vm", "start"))
        cgroup = platform.cgroup(Instance(name, 0, {}, Path()))
        assert not any(directory.exists() for directory in cgroup.directories()), "a trial left a cgroup"
        return self.folder.trials()[-1]

    def _befall(self, fault: Callable[[int, Path], None], name: str, after_start: bool) -> None:
        cgroup = self._platform.cgroup(Instance(name, 0, {}, Path()))
        until(lambda: not after_start or name in self._platform._running, BOOT_S)
        pids = until(cgroup.pids, BOOT_S)
        fault(pids[0], self.folder.log_path(name))
        self.befallen.append(name)


@pytest.fixture
def run(platform: VmPlatform, image: Image, tmp_path: Path) -> Iterator[Run]:
    folder = RunFolder.create(tmp_path / "results", "run", {"run": "run", "scenario": "faults"})
    with Lab() as lab:
        yield Run(platform, image, lab, folder)


def read(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def kill_when_it_speaks(pid: int, log: Path) -> None:
    until(lambda: "last words" in read(log), BOOT_S)
    os.kill(pid, signal.SIGKILL)


def stop(pid: int, log: Path) -> None:
    os.kill(pid, signal.SIGSTOP)


def test_each_fault_fails_its_own_trial_and_the_run_goes_on(run: Run) -> None:
    assert run.trial(1, SERVE).outcome == "ok"

    killed = run.trial(2, WAIT, kill_when_it_speaks)
    assert killed.outcome == "failed"
    assert killed.reason.endswith("the first process of web has ended: QEMU was killed by signal 9")
    assert "last words" in killed.details

    ended = run.trial(3, "echo goodbye; sleep 1; exit 3")
    assert (ended.outcome, ended.reason.split(": ", 1)[1]) == (
        "failed",
        "the first process of web has ended: exit status 3",
    )
    assert "goodbye" in ended.details

    hangs = run.trial(4, SERVE, stop, HANGS_S, after_start=True)
    assert hangs.outcome == "failed"
    assert f"{HANGS_S * run._platform.patience:g} s" in hangs.reason
    assert "t004-web" in hangs.details

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testbed.qemu.running.START_LIMIT_S", 1.5)
        stuck = run.trial(8, SERVE, stop)
    assert stuck.outcome == "failed"
    assert "did not answer libvirt within" in stuck.reason

    assert run.befallen == ["t002-web", "t004-web", "t008-web"]

    log = run.folder.log_path("t005-web")
    small = log.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        full = run.trial(5, FLOOD)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert full.outcome == "failed"
    assert "No space left on device" in full.reason and str(log) in full.reason
    assert "not short at all" in full.details

    last = run.trial(6, SERVE)
    assert last.outcome == "ok", "the run goes on"
    assert [trial.outcome for trial in run.folder.trials()] == ["ok", *["failed"] * 5, "ok"]


def test_a_kernel_that_panics_is_named(platform: VmPlatform, layer: Path, tmp_path: Path) -> None:
    """Asked to by its own workload, which may write below /proc/sys here."""
    spec = Spec(
        Process(args=("sh", "-c", "sleep 1; echo c > /proc/sysrq-trigger; sleep 600")),
        (str(layer),),
        "boxed",
        Resources(128 << 20, 1.0),
        readonly_paths=(),
    )
    one = Instance("a0-web", 0, {"web": spec}, tmp_path / "log")
    with Lab():
        platform.start(one)
        platform.started(one, BOOT_S)
        until(lambda: not platform.alive(one), BOOT_S)
        assert platform.ending(one).startswith("its kernel panicked: Kernel panic - not syncing: sysrq triggered crash")
        platform.stop(one)


def test_a_full_disk_where_guests_are_prepared(
    platform: VmPlatform, layer: Path, tmp_path: Path, run_name: str, cgroup_parent: str
) -> None:
    spec = Spec(Process(args=("true",)), (str(layer),), "boxed", Resources(128 << 20, 1.0))
    one = Instance("a0-web", 0, {"web": spec}, tmp_path / "log")
    scratch = platform._scratch
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(scratch)], check=True)
    try:
        with Lab(), pytest.raises(TestbedError, match=r"start virtual machine a0-web: .*No space left on device"):
            platform.start(one)
        assert os.listdir(scratch) == []
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
    assert not any(path.exists() for path in Cgroup(f"{cgroup_parent}/a0-web").directories())
    with Lab():
        platform.start(one)
        platform.started(one, BOOT_S)
        platform.stop(one)
