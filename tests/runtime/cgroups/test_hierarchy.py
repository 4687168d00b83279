"""Which controllers a host has, read from mountinfo of the three kinds of host."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, Hierarchies, require
from runtime.cgroups.hierarchy import parse
from runtime.errors import PrerequisiteError

V1 = """\
30 1 0:26 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory
31 1 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 1 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_controllers_that_share_a_mount() -> None:
    v1, unified = parse(V1)
    assert v1 == {
        "memory": Path("/sys/fs/cgroup/memory"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
    }
    assert unified == Path("/sys/fs/cgroup/unified")


def test_a_shared_mount_is_used_once() -> None:
    v1, unified = parse(V1)
    assert len(Hierarchies(v1, unified, frozenset()).used) == 2


@pytest.mark.parametrize(
    ("found", "mode"),
    [
        (Hierarchies({}, Path("/u"), frozenset({"memory"})), "v2"),
        (Hierarchies({"memory": Path("/m")}, Path("/u"), frozenset()), "hybrid"),
        (Hierarchies({"memory": Path("/m")}, None, frozenset()), "v1"),
        (Hierarchies({}, None, frozenset()), "none"),
    ],
)
def test_mode(found: Hierarchies, mode: str) -> None:
    assert found.mode == mode


def test_a_missing_controller_is_named() -> None:
    with pytest.raises(PrerequisiteError, match="pids") as caught:
        require(Hierarchies({}, Path("/u"), frozenset({"memory", "cpu"})))
    assert caught.value.exit_code == 5


def test_on_version_two_a_lease_passes_controllers_down_to_its_instances(tmp_path: Path) -> None:
    """A cgroup that exists already is not made again: whoever makes it must be the one to delegate."""
    found = Hierarchies({}, tmp_path, frozenset({"memory", "cpu", "pids"}))
    Cgroup("testbed/run", found).make()
    Cgroup("testbed/run/instance", found).make_parent()
    for above in ("", "testbed", "testbed/run"):
        assert (tmp_path / above / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert not (tmp_path / "testbed/run/instance").exists()


def test_without_a_lease_the_instance_makes_what_is_above_it(tmp_path: Path) -> None:
    found = Hierarchies({}, tmp_path, frozenset({"memory", "cpu", "pids"}))
    Cgroup("testbed/run/instance", found).make_parent()
    assert (tmp_path / "testbed/run/cgroup.subtree_control").exists()
