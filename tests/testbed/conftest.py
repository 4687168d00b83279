"""What tests of virtual machines share: a store that has the real one's kernel, a layer, a libvirtd of a test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import libc
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.plan.constants import CLONE_NEWNET
from runtime.spec import CPU_PERIOD_USEC
from testbed.lab import BRIDGE
from testbed.platforms.registry import choose_vm_class
from testbed.platforms.vm import VmPlatform
from testbed.qemu.daemon import Daemon, find_libvirtd
from testbed.qemu.emulator import ensure_emulator, find_qemu
from testbed.qemu.variants import VARIANTS
from tests import scratches
from vm_images.kernel import ensure_kernel


@pytest.fixture(scope="session")
def home_path() -> Iterator[Path]:
    """Where the stores of tests are, one after the other, where QEMU's account can get to (pytest keeps its directories
    to itself): whether KVM works is tried once for each path, and where it does not, that takes ten seconds."""
    parent = scratches.store_path(scratches.name_run())
    parent.mkdir()
    parent.chmod(0o755)
    try:
        yield parent / "home"
    finally:
        shutil.rmtree(parent / "images", ignore_errors=True)
        parent.rmdir()


@pytest.fixture(scope="module")
def home(home_path: Path) -> Iterator[Path]:
    """A store of the tests' own that shares the real one's kernel, and its images with the one before it: those of
    hosts of containers take long to build."""
    guest = store_root() / "guest"
    try:
        ensure_kernel(guest)
        ensure_emulator(guest, find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"no guest kernel: {error}")
    home_path.mkdir()
    try:
        home_path.chmod(0o755)
        (home_path / "guest").mkdir()
        for kept in [*guest.glob("kernel-*"), *guest.glob("emulator-*"), *guest.glob("accelerators-*")]:
            (home_path / "guest" / kept.name).symlink_to(kept)
        images, before = home_path / "images", home_path.parent / "images"
        if before.exists():
            before.rename(images)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TESTBED_HOME", str(home_path))
            yield home_path
        if images.exists():
            images.rename(before)
    finally:
        shutil.rmtree(home_path)


@pytest.fixture
def layer(busybox_layer: Path, home: Path, run_name: str) -> Path:
    """A layer with a page to serve and a directory to work in, on the file system of the store."""
    layer = home / "layers" / run_name
    shutil.copytree(busybox_layer, layer, symlinks=True)
    (layer / "srv").mkdir()
    (layer / "tmp").mkdir()
    (layer / "srv" / "index.html").write_text("from the layer")
    return layer


@pytest.fixture
def libvirt_daemon(run_name: str, cgroup_parent: str) -> Iterator[Daemon]:
    """A libvirtd in a network namespace that is neither the host's nor a lab's."""
    try:
        find_libvirtd()
        emulator = ensure_emulator(store_root() / "guest", find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    scratch = Path("/run/testbed") / run_name
    shown = (scratch, store_root(), emulator.parent)
    made = Daemon(scratch / "libvirtd", Cgroup(f"{cgroup_parent}/libvirtd"), shown, reroot=False)
    try:
        with Path("/proc/thread-self/ns/net").open() as home:
            libc.call("unshare", CLONE_NEWNET)
            try:
                made.start()
            finally:
                libc.call("setns", home.fileno(), CLONE_NEWNET)
        yield made
    finally:
        made.close()


@pytest.fixture
def limited(cgroup_parent: str) -> Iterator[Cgroup]:
    """A cgroup that may use a tenth of a processor."""
    cgroup = Cgroup(f"{cgroup_parent}/limited")
    cgroup.make()
    quota_usec = CPU_PERIOD_USEC // 10
    if "cpu" in cgroup.hierarchies.v1:
        cgroup.file("cpu", "cpu.cfs_period_us", "").write_text(str(CPU_PERIOD_USEC))
        cgroup.file("cpu", "cpu.cfs_quota_us", "").write_text(str(quota_usec))
    else:
        cgroup.file("cpu", "", "cpu.max").write_text(f"{quota_usec} {CPU_PERIOD_USEC}")
    yield cgroup
    cgroup.remove()


@pytest.fixture
def make_vm(
    home: Path, run_name: str, cgroup_parent: str, scratch: Path, layer: Path
) -> Iterator[Callable[..., VmPlatform]]:
    """Makes the platform of a variant, with a port for ``commands`` or without, with the busybox layer's disk."""
    # The image's name is its content's: the disk is built for each temporary directory anew.
    image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", layer),))
    with ExitStack() as undo:

        def make(name: str, *, commands: bool = False) -> VmPlatform:
            variant = replace(VARIANTS[name], commands=commands)
            platform = choose_vm_class(variant)(scratch, BRIDGE, run_name, variant)
            undo.callback(platform.close)
            platform.prepare_images([image])
            return platform

        yield make
