"""A guest from a store, in a scratch directory and under a name that are full of characters with a meaning."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform

pytestmark = [pytest.mark.root, pytest.mark.vm]
HOSTILE = "a b,<&>\"'é=#%;"
TIMEOUT_S = 60.0


@pytest.fixture
def platform(
    run_name: str, cgroup_parent: str, busybox_layer: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VmPlatform]:
    """With a store that has the real one's kernel and nothing else, so that all else is made at such a path."""
    kernels = list((store_root() / "guest").glob("kernel-*"))
    if not kernels:
        pytest.skip("no guest kernel has been made yet")
    store = Path(tempfile.mkdtemp(prefix="testbed-home-", dir="/var/tmp"))  # pytest keeps its directories to itself
    store.chmod(0o755)
    home = store / HOSTILE
    (home / "guest").mkdir(parents=True)
    for kernel in kernels:
        shutil.copytree(kernel, home / "guest" / kernel.name, symlinks=True)
    monkeypatch.setenv("TESTBED_HOME", str(home))
    scratch = Path("/run") / f"{run_name} {HOSTILE.translate({44: None, 61: None})}"  # see connection
    scratch.mkdir()
    made = VmPlatform(scratch, BRIDGE, run_name)
    try:
        image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", busybox_layer),))
        made.prepare_images([image])
        yield made
    finally:
        made.close()
        left = os.listdir(scratch)
        shutil.rmtree(scratch)
        shutil.rmtree(store)
    assert left == []


def test_it_boots(platform: VmPlatform, busybox_layer: Path, tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo "$0"; sleep 2; exit 5', HOSTILE)
    spec = Spec(Process(args=command), (str(busybox_layer),), "boxed", Resources(128 << 20, 1.0, 24))
    one = Instance(f"a0 {HOSTILE}", 0, {"web": spec}, tmp_path / f"{HOSTILE}.log")
    with Lab():
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        assert platform.exit_status(one, TIMEOUT_S) == 5
        platform.stop(one)
    assert not any(directory.exists() for directory in platform.cgroup(one).directories())
    assert HOSTILE in one.log.read_text()
