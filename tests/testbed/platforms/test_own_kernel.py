"""A guest kernel of somebody's own: who is given one, and what is said of one that does not do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Resources
from testbed.lab import Lab
from testbed.platforms import own_kernel, registry
from testbed.platforms.own_kernel import explained, find_suspect, require_options
from testbed.platforms.protocol import Platform
from testbed.platforms.registry import Machines, check_machines
from testbed.qemu.accelerator import Attempt, NoGuestBoots
from testbed.qemu.variants import VARIANTS
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo
from testbed.stage import prepare
from vm_images.kernel import GuestKernel, find_stored_guest_kernel
from vm_images.minimal_kernel import find_stored_minimal_kernel
from vm_images.own_kernel import CONFIG, read_own_kernel

# Of the real store, whatever the tests' own is.
KERNELS = store_root() / "guest"
KERNEL = GuestKernel(Path("/nowhere"), "6.9", "vmlinux", "sha256:12", True, (), own=True)


def test_a_platform_that_is_given_no_kernel_says_so() -> None:
    assert check_machines(("container", "vm", "vm-micro"), Machines(KERNEL)) == ()
    (said,) = check_machines(("vm", "vm-cloud"), Machines(KERNEL))
    assert said == "vm-cloud boots the kernel of its own disk: --guest-kernel is not for it"
    with pytest.raises(UsageError, match="none of container is given a kernel"):
        check_machines(("container",), Machines(KERNEL))
    with pytest.raises(UsageError, match="vm-cloud boots the kernel of its own disk") as raised:
        check_machines(("container", "vm-cloud"), Machines(KERNEL))
    assert "vm-restored" in raised.value.hint and "vm-cloud" not in raised.value.hint


@pytest.mark.parametrize("cpus", [-1.0, 65.0, float("nan"), float("inf")])
def test_a_share_of_processors_that_is_none_is_refused(cpus: float) -> None:
    with pytest.raises(UsageError, match="not a number of processors"):
        check_machines(("vm",), Machines(emulator_cpus=cpus))


def test_a_share_for_no_machine_is_refused() -> None:
    check_machines(("container",), Machines())
    with pytest.raises(UsageError, match="no virtual machine among container"):
        check_machines(("container",), Machines(emulator_cpus=0.5))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_machine_that_boots_a_kernel_gets_it(name: str, tmp_path: Path) -> None:
    made = registry.create(name, "run", tmp_path, Lab(), machines=Machines(KERNEL, 0.5))
    given = made._variant  # type: ignore[attr-defined]
    assert given.emulator_cpus == 0.5
    assert given.kernel == (VARIANTS[name].kernel if name == "vm-cloud" else KERNEL)
    made.close()


def test_a_kernel_that_says_what_it_lacks_is_not_booted(tmp_path: Path) -> None:
    kernel = replace(KERNEL, folder=tmp_path)
    require_options(kernel, VARIANTS)  # it holds no configuration
    (tmp_path / CONFIG).write_text("CONFIG_VIRTIO_BLK=m\n")
    with pytest.raises(PrerequisiteError, match="guest's of vm; not built in: ") as raised:
        require_options(kernel, {"vm": VARIANTS["vm"]})
    assert "CONFIG_VIRTIO_BLK (only as a module)" in raised.value.message
    assert "CONFIG_EROFS_FS (off)" in raised.value.message and "BALLOON" not in raised.value.message


def test_a_failure_quotes_the_console_and_says_what_is_needed() -> None:
    attempts = (
        Attempt("kvm", "hangs", console="Booting from ROM.."),
        Attempt("tcg", "ended", console="panic: no init"),
    )
    with pytest.raises(PrerequisiteError) as raised, explained(KERNEL, VARIANTS["vm"]):
        raise NoGuestBoots("no guest boots", "", attempts)
    assert "the kernel vmlinux (6.9) does not serve vm: no guest boots" in raised.value.message
    for said in (
        "under kvm, its console's last lines:\nBooting from ROM..",
        "panic: no init",
        "VIRTIO_BLK, VIRTIO_NET",
    ):
        assert said in raised.value.hint
    with pytest.raises(PrerequisiteError, match="it ended"), explained(KERNEL, VARIANTS["vm"]):
        raise WorkloadError("it ended", "last words")
    with pytest.raises(WorkloadError, match="no image"), explained(KERNEL, VARIANTS["vm"], starts=False):
        raise WorkloadError("no image")


class _Bench:
    """What a run does before it measures: platforms of a scenario with one service, prepared with a kernel."""

    def __init__(self, scratch: Path, run: str, layer: Path) -> None:
        self.scratch, self._run = scratch, run
        settings = Settings(
            trials=1,
            ready=Ready("web", 80, "/", 200, "ready", timeout_s=60, timeout_vm_s=60),
            load=Load("web", 80, "GET", "/", (1.0,), duration_s=1.0, warmup_s=0.1, connections=1),
            slo=Slo(p99_ms=150.0, error_fraction=0.01),
            density=Density(rate_per_s=1.0, settle_s=0.1, window_s=0.4, cap=1),
        )
        limits = Resources(128 << 20, 1.0, 24)
        service = Service("web", limits, ports=(), command=("sleep", "60"))
        self._scenario = Scenario("own", Path(), (service,), settings, settings)
        image = Image("test/own", f"sha256:{run}", ImageConfig(), (Layer("sha256:busybox", layer),))
        self._images = {"web": image}

    def prepare(self, name: str, kernel: GuestKernel) -> Platform:
        platform = registry.create(name, self._run, self.scratch, Lab(), machines=Machines(kernel))
        try:
            prepare(platform, kernel, self._scenario, self._images, self.scratch)
        finally:
            self.facts = dict(platform.facts()) if platform._prepared else {}  # type: ignore[attr-defined]
            platform.close()
        return platform


@pytest.fixture
def bench(home: Path, run_name: str, cgroup_parent: str, scratch: Path, layer: Path) -> Iterator[_Bench]:
    yield _Bench(scratch, run_name, layer)
    for log in scratch.glob("kernel-*"):  # of the boots that tried the kernel
        log.unlink()


@pytest.mark.root
@pytest.mark.vm
def test_a_kernel_without_its_modules_is_found_out_before_anything_is_measured(bench: _Bench, home: Path) -> None:
    """The distribution's: it boots, and has no driver for its network card."""
    stored = find_stored_guest_kernel(home / "guest")
    assert stored is not None
    kernel = read_own_kernel(home / "guest", stored.image)
    with pytest.raises(PrerequisiteError, match=r"does not serve vm: .*netlink.*lacks CONFIG_VIRTIO_NET\n") as raised:
        bench.prepare("vm", kernel)
    assert "testbed: first userspace" in raised.value.hint, "the console's last lines"
    assert "must be built in: " in raised.value.hint and "VIRTIO_BLK" in raised.value.hint


@pytest.mark.root
@pytest.mark.vm
def test_a_kernel_that_does_not_boot_is_found_out_by_its_console(
    bench: _Bench, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind the headers is damaged, as no check of a file can see."""
    monkeypatch.setattr("testbed.qemu.accelerator.TIME_LIMIT_S", 3.0)
    stored = find_stored_guest_kernel(home / "guest")
    assert stored is not None
    whole = bytearray(stored.image.read_bytes())
    whole[0x200000:0x210000] = bytes(0x10000)
    (tmp_path / "vmlinux").write_bytes(whole)
    with pytest.raises(PrerequisiteError, match="does not serve vm: no guest boots") as raised:
        bench.prepare("vm", read_own_kernel(home / "guest", tmp_path / "vmlinux"))
    assert "must be built in" in raised.value.hint


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.parametrize("name", ["vm", "vm-micro", "vm-disk", "vm-restored"])
def test_a_kernel_with_all_built_in_serves(name: str, bench: _Bench, home: Path, tmp_path: Path) -> None:
    try:
        built = find_stored_minimal_kernel(KERNELS)
    except PrerequisiteError:
        pytest.skip("there is no minimal kernel to give: ./invoke images.kernel")
    shutil.copy2(built.image, tmp_path / "mine")
    kernel = read_own_kernel(home / "guest", tmp_path / "mine")
    assert kernel.release == built.release
    bench.prepare(name, kernel)
    assert bench.facts["kernel"] == built.release and bench.facts["kernel_sha256"] == built.sha256
    assert str(bench.facts["kernel_package"]).startswith("mine sha256:")


@pytest.mark.parametrize(
    ("failure", "name", "suspect"),
    [
        ("testbed: step 5: wait path /dev/vda: ETIMEDOUT (110)", "vm", "CONFIG_VIRTIO_BLK"),
        ("testbed: step 5: mount /lower: ENODEV (19)", "vm", "CONFIG_EROFS_FS"),
        ("testbed: step 5: mount /merged: ENODEV (19)", "vm", "CONFIG_OVERLAY_FS"),
        ("testbed: step 5: mount /merged: ENODEV (19)", "vm-disk", "CONFIG_EXT4_FS"),
        ("testbed: step 5: mount /merged: EIO (5)", "vm", ""),
    ],
)
def test_a_failed_step_points_to_an_option(failure: str, name: str, suspect: str) -> None:
    assert find_suspect(failure, VARIANTS[name]) == suspect


def test_the_failure_says_what_the_machine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vm-micro", "vm-disk"):
        with pytest.raises(PrerequisiteError) as raised, own_kernel.explained(KERNEL, VARIANTS[name]):
            raise WorkloadError("it ended")
        assert ("VIRTIO_MMIO" in raised.value.hint, "EXT4_FS" in raised.value.hint) == (
            name == "vm-micro",
            name == "vm-disk",
        )
