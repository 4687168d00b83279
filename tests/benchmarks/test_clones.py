"""The benchmark of clones: its rows, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.images.layers import settle
from runtime.images.model import ImageConfig
from runtime.images.store import Store
from tests.owned import mounts_of

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.root
def test_it_measures_all_ways_and_leaves_nothing(tmp_path: Path, busybox_layer: Path) -> None:
    (busybox_layer / "usr").mkdir()
    # Much more than a mount is charged for: some KiB, or a MiB and more on a host that has had thousands of cgroups.
    (busybox_layer / "usr" / "file").write_bytes(b"x" * (16 << 20))
    images = Store(tmp_path / "home" / "images")
    with images.building(lambda _: None):
        layer = images.add_layer(busybox_layer, "test", settle(busybox_layer, time.time() + 9))
        images.tag("testbed/base:test", ImageConfig(), [layer])
    before = sorted(os.listdir(tmp_path / "home"))
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "clones.py"), "--clones=3", "--copies=2", "--json"]
    own = {**os.environ, "TESTBED_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {"overlay", "copy", "cp -a"} <= set(rows)
    assert rows["copy"]["disk_kib_each"] > 16384 > 100 > rows["overlay"]["disk_kib_each"]
    assert rows["copy"]["memory_further_mib"] > 14 > 10 > rows["overlay"]["memory_further_mib"]
    assert sorted(os.listdir(tmp_path / "home")) == before and mounts_of(tmp_path) == []
