"""Containers of an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.config.decode import encode
from runtime.config.default import rootless_config

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]


def _user() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


@pytest.fixture
def bundle(busybox_layer: Path) -> Iterator[Path]:
    """A bundle that belongs to an ordinary user, in a directory that this user can reach."""
    with tempfile.TemporaryDirectory(prefix="rootless-", dir="/tmp") as name:
        directory = Path(name)
        shutil.copytree(busybox_layer, directory / "rootfs", symlinks=True)
        subprocess.run(["chown", "-R", f"{_user().pw_uid}:{_user().pw_gid}", name], check=True)
        yield directory


def run(bundle: Path, script: str, **linux: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a container as that user."""
    config = encode(rootless_config(_user().pw_uid, _user().pw_gid))
    config["process"].update({"args": ["sh", "-c", script], "terminal": False})
    config["linux"].update(linux)
    config["root"]["readonly"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    reachable = subprocess.run(
        ["ls", REPOSITORY / "runtime"], user=_user().pw_uid, group=_user().pw_gid, extra_groups=[]
    )
    if reachable.returncode != 0:
        pytest.skip("the checkout is closed to other users")
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli", "--root", str(bundle / "state"), "run", "--bundle", str(bundle), "a"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        user=_user().pw_uid,
        group=_user().pw_gid,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_an_ordinary_user_is_root_inside(bundle: Path) -> None:
    done = run(bundle, "id -u; cat /proc/self/uid_map; touch /mine && echo ok")
    assert done.stdout.split() == ["0", "0", str(_user().pw_uid), "1", "ok"], done.stderr
    assert (bundle / "rootfs" / "mine").stat().st_uid == _user().pw_uid
    assert list((bundle / "state").iterdir()) == []


def test_a_limit_that_needs_a_cgroup_is_refused_in_words(bundle: Path) -> None:
    done = run(bundle, "true", resources={"memory": {"limit": 1 << 25}})
    assert done.returncode == 5 and "may not write to the host's cgroups" in done.stderr


def test_a_range_that_the_user_does_not_own_is_refused(bundle: Path) -> None:
    mappings = [{"containerID": 0, "hostID": 0, "size": 10}]
    done = run(bundle, "true", uidMappings=mappings, gidMappings=mappings)
    assert done.returncode != 0 and "newuidmap" in done.stderr and "0 0 10" in done.stderr
    assert list((bundle / "state").iterdir()) == []
