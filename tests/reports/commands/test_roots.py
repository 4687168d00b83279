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
        front = [sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT), *words]
        done = subprocess.run(front, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == fails, done.stderr
        return done.stdout + done.stderr

    said = run(
        *("roots", "create", "web", "test/base"),
        *("roots.run", "web", "--command", "/bin/sh -c 'echo made > /file; cat /file'"),
        *("roots.snapshot", "web", "one", "roots.clone", "web@one", "other", "roots.diff", "web"),
        *("roots.clone", "web", "copy", "--driver", "copy"),
    )
    assert said == "made\ndriver: overlay\nA /file\ndriver: copy\n"
    assert run("roots", "run", "web", "--command", "/bin/sh -c 'exit 7'", fails=7) == ""
    assert "clones come from its snapshots" in run("roots", "rm", "web", fails=1)
    assert "no name for a root" in run("roots", "create", "../x", "test/base", fails=1)
    said = run(
        *("roots", "rollback", "web", "one", "roots.promote", "other", "roots.rm", "web"),
        *("roots.commit", "other", "test/new", "roots.diff", "other", "--json"),
    )
    assert "2 layers" in said and json.loads(said[said.index("[") : said.index("]") + 1]) == [
        {"kind": "added", "path": "/file", "what": ""}
    ]
    assert run("roots", "list") == "copy: of test/base\nother: of test/base\n  other@one\n  other@copy\n"
    run("roots", "rm", "other", "roots.rm", "copy")
    assert os.listdir(tmp_path / "roots" / "layers") == []
