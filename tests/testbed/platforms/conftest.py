"""Virtual machines of every kind for tests: a store that shares the real one's kernel, a layer, and platforms."""

from __future__ import annotations

import os
import shutil
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of the tests' own, on the file system of their layers, that shares the real one's kernel."""
    guest = store_root() / "guest"
    try:
        ensure_kernel(guest)
        ensure_emulator(guest, find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"no guest kernel: {error}")
    home = tmp_path_factory.mktemp("home")
    (home / "guest").mkdir()
    for kept in [*guest.glob("kernel-*"), *guest.glob("emulator-*")]:
        (home / "guest" / kept.name).symlink_to(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESTBED_HOME", str(home))
        yield home


@pytest.fixture
def layer(busybox_layer: Path) -> Path:
    """A layer with a page to serve and a directory to work in."""
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("from the layer")
    return busybox_layer


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
