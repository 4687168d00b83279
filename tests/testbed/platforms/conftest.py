"""Virtual machines of every kind for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import BRIDGE
from testbed.platforms.registry import choose_vm_class
from testbed.platforms.vm import VmPlatform
from testbed.qemu.variants import VARIANTS


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
