"""Virtual machines of every kind for tests: a store that shares the real one's kernel, a layer, and platforms."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import BRIDGE
from testbed.platforms.emulator import ensure_emulator, find_qemu
from testbed.platforms.variants import VARIANTS
from testbed.platforms.vm import VmPlatform
from vm_images.kernel import ensure_kernel


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A store of the tests' own that shares the real one's kernel, where QEMU's account can get to (pytest keeps its
    directories to itself)."""
    guest = store_root() / "guest"
    try:
        ensure_kernel(guest)
        ensure_emulator(guest, find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"no guest kernel: {error}")
    home = Path(tempfile.mkdtemp(prefix="testbed-home-", dir="/var/tmp"))
    try:
        home.chmod(0o755)
        (home / "guest").mkdir()
        for kept in [*guest.glob("kernel-*"), *guest.glob("emulator-*"), *guest.glob("accelerators-*")]:
            (home / "guest" / kept.name).symlink_to(kept)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TESTBED_HOME", str(home))
            yield home
    finally:
        shutil.rmtree(home)


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
def make_vm(home: Path, run_name: str, cgroup_parent: str, layer: Path) -> Iterator[Callable[[str], VmPlatform]]:
    """Makes the platform of a variant with the busybox layer's disk; it leaves nothing in its scratch directory."""
    scratch = Path("/run") / f"testbed-{run_name}"  # short, as sockets need
    # The image's name is its content's: the disk is built for each temporary directory anew.
    image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", layer),))
    scratch.mkdir()
    try:
        with ExitStack() as undo:

            def make(name: str) -> VmPlatform:
                platform = VmPlatform(scratch, BRIDGE, run_name, VARIANTS[name])
                undo.callback(platform.close)
                platform.prepare_images([image])
                return platform

            yield make
        assert os.listdir(scratch) == []
    finally:
        shutil.rmtree(scratch)
