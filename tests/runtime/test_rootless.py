"""Containers of an unprivileged user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups.placing import all_hierarchies
from runtime.config.decode import encode
from runtime.config.default import rootless_config
from runtime.launcher.build import COMMAND
from tests.waiting import until

pytestmark = pytest.mark.root


def _user() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


@pytest.fixture
def bundle(busybox_layer: Path) -> Iterator[Path]:
    """A bundle that belongs to an unprivileged user, in a directory that this user can reach."""
    with tempfile.TemporaryDirectory(prefix="rootless-", dir="/tmp") as name:
        directory = Path(name)
        shutil.copytree(busybox_layer, directory / "rootfs", symlinks=True)
        subprocess.run(["chown", "-R", f"{_user().pw_uid}:{_user().pw_gid}", name], check=True)
        yield directory


def run(bundle: Path, script: str, planner: str = "off", **linux: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a container as that user."""
    config = encode(rootless_config(_user().pw_uid, _user().pw_gid))
    config["process"].update({"args": ["sh", "-c", script], "terminal": False})
    config["mounts"] += linux.pop("mounts", [])
    config["linux"].update(linux)
    config["root"]["readonly"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    reachable = subprocess.run([COMMAND, "--version"], user=_user().pw_uid, group=_user().pw_gid, extra_groups=[])
    if reachable.returncode != 0:
        pytest.skip("the checkout is closed to other users")
    return subprocess.run(
        [str(COMMAND), "--root", str(bundle / "state"), "run", "--bundle", str(bundle), "a"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=bundle,
        user=_user().pw_uid,
        group=_user().pw_gid,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(bundle), "TESTBED_PLANNER": planner},
    )


def test_an_ordinary_user_is_root_inside(bundle: Path) -> None:
    done = run(bundle, "id -u; cat /proc/self/uid_map; touch /mine && echo ok")
    assert done.stdout.split() == ["0", "0", str(_user().pw_uid), "1", "ok"], done.stderr
    assert (bundle / "rootfs" / "mine").stat().st_uid == _user().pw_uid
    assert list((bundle / "state").iterdir()) == []


def test_a_planner_is_its_users_alone(bundle: Path) -> None:
    directory = bundle / "testbed-runtime-planner"
    assert run(bundle, "id -u", planner="1").stdout == "0\n"
    (socket,) = until(lambda: list(directory.glob("*.socket")))
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (_user().pw_uid, 0o700)
    assert run(bundle, "id -u; cat /proc/self/uid_map", planner="1").stdout.split() == [
        "0",
        "0",
        str(_user().pw_uid),
        "1",
    ]
    until(lambda: not socket.exists())  # nobody asks any more


def test_devices_are_the_hosts_and_run_no_program(bundle: Path) -> None:
    done = run(bundle, "head -c 3 /dev/zero | wc -c; grep ' /dev/[nzfrut][a-z]* ' /proc/self/mountinfo")
    size, *lines = done.stdout.splitlines()
    assert size == "3" and len(lines) == 6, done.stderr
    assert all({"nosuid", "noexec"} <= set(line.split()[5].split(",")) for line in lines)


def test_a_limit_that_needs_a_cgroup_is_refused_in_words(bundle: Path) -> None:
    done = run(bundle, "true", resources={"memory": {"limit": 1 << 25}})
    assert done.returncode == 5 and "may not write to the host's cgroups" in done.stderr


def test_limits_where_a_cgroup_is_delegated(bundle: Path, run_name: str) -> None:
    """As an administrator or systemd gives a user a cgroup of its own."""
    user, found = _user(), all_hierarchies()
    mounts = {found.mount_of(name) for name in ("pids", "memory", "freezer")} - {None}
    directories = [mount / run_name for mount in mounts if mount]
    for directory in directories:
        directory.mkdir()
        for path in (directory, *directory.glob("cgroup.*"), *directory.glob("tasks")):
            os.chown(path, user.pw_uid, user.pw_gid)
    try:
        script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
        limits = {"pids": {"limit": 4}, "memory": {"limit": 1 << 25}}
        done = run(bundle, script, cgroupsPath=f"/{run_name}/c", resources=limits)
        assert "can't fork" in done.stderr
        assert list((bundle / "state").iterdir()) == []
        refused = run(bundle, "true", cgroupsPath=f"/{run_name}/c", resources={"cpu": {"shares": 3}})
        assert found.mode == "v2" or "no cpu controller" in refused.stderr
        assert all(not list(directory.glob("*/")) for directory in directories)
    finally:
        for directory in directories:
            directory.rmdir()


def test_an_overlay_of_its_own(bundle: Path) -> None:
    """Mounted in the user namespace, with attributes that an unprivileged user may write (userxattr)."""
    for name in ("lower", "upper", "work"):
        (bundle / name).mkdir()
        os.chown(bundle / name, _user().pw_uid, _user().pw_gid)
    (bundle / "lower" / "file").write_text("below\n")
    os.chown(bundle / "lower" / "file", _user().pw_uid, _user().pw_gid)
    overlay = {
        "destination": "/merged",
        "type": "overlay",
        "source": "overlay",
        "options": [*(f"{name}dir={bundle}/{name}" for name in ("lower", "upper", "work")), "userxattr"],
    }
    done = run(bundle, "cat /merged/file; echo above > /merged/file; cat /merged/file", mounts=[overlay])
    assert done.stdout.split() == ["below", "above"], done.stderr
    assert (bundle / "lower" / "file").read_text() == "below\n"


def test_a_range_that_the_user_does_not_own_is_refused(bundle: Path) -> None:
    mappings = [{"containerID": 0, "hostID": 0, "size": 10}]
    done = run(bundle, "true", uidMappings=mappings, gidMappings=mappings)
    assert done.returncode != 0 and "newuidmap" in done.stderr and "0 0 10" in done.stderr
    assert list((bundle / "state").iterdir()) == []
