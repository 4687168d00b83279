"""The tasks on roots, end to end, in a store of their own."""

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

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.root


def test_a_root_by_its_tasks(tmp_path: Path, busybox_layer: Path) -> None:
    images = Store(tmp_path / "images")
    with images.building(lambda _: None):
        layer = images.add_layer(busybox_layer, "test", settle(busybox_layer, time.time() + 9))
        images.tag("test/base", ImageConfig(), [layer])
    own = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_HOME": str(tmp_path)}

    def run(*words: str, fails: int = 0) -> str:
        front = [sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT), "roots", *words]
        done = subprocess.run(front, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == fails, done.stderr
        return done.stdout + done.stderr

    run("create", "web", "test/base")
    assert run("run", "web", "--command", "/bin/sh -c 'echo made > /file; cat /file'") == "made\n"
    run("snapshot", "web", "one")
    run("run", "web", "--command", "/bin/sh -c 'exit 7'", fails=7)
    assert run("clone", "web@one", "other") == "driver: overlay\n"
    assert run("clone", "web", "copy", "--driver", "copy") == "driver: copy\n"
    assert run("diff", "web") == "A /file\n"
    assert json.loads(run("diff", "other", "--json")) == [{"kind": "A", "path": "/file"}]
    assert "clones come from its snapshots" in run("rm", "web", fails=1)
    run("rollback", "web", "one")
    run("promote", "other")
    run("rm", "web", fails=0)
    assert "2 layers" in run("commit", "other", "test/new")
    assert [one["name"] for one in json.loads(run("list", "--json"))] == ["copy", "other"]
    assert "no name for a root" in run("create", "../x", "test/base", fails=1)
    run("rm", "other")
    run("rm", "copy")
    assert os.listdir(tmp_path / "roots" / "layers") == []
