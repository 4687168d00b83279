"""Virtual machines of every kind for tests, and what guests' kernels may load."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import BRIDGE
from testbed.platforms.registry import choose_vm_class
from testbed.platforms.vm import VmPlatform
from testbed.qemu.variants import VARIANTS
from tests import scratches
from vm_images.kernel import Package, download, ensure_kernel


@pytest.fixture
def make_vm(
    home: Path, run_name: str, cgroup_parent: str, scratch: Path, layer: Path
) -> Iterator[Callable[[str], VmPlatform]]:
    """Makes the platform of a variant with the busybox layer's disk."""
    # The image's name is its content's: the disk is built for each temporary directory anew.
    image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", layer),))
    with ExitStack() as undo:

        def make(name: str) -> VmPlatform:
            platform = choose_vm_class(VARIANTS[name])(scratch, BRIDGE, run_name, VARIANTS[name])
            undo.callback(platform.close)
            platform.prepare_images([image])
            return platform

        yield make


@pytest.fixture(scope="session")
def kernel_package() -> Iterator[Path]:
    """The package of the guests' kernel, unpacked: it has more modules than the store."""
    work = scratches.in_store(scratches.name_run())
    try:
        kernel = ensure_kernel(store_root() / "guest")
        work.mkdir()
        yield download((Package(kernel.package, kernel.version, (), ""),), work)
    except PrerequisiteError as error:
        pytest.skip(f"no package of a kernel: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
