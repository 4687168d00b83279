"""The making of a container, by the command line: what it is given and checked for, and what is left when it fails."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import Runtime, assert_no_cgroup, said_on, unique

pytestmark = pytest.mark.root


def test_an_id_is_taken_once(oci: Runtime) -> None:
    oci.shell("sleep 100")
    oci("create", "a")
    assert "already exists" in oci("create", "a", check=False).stderr
    oci("delete", "--force", "a")


def test_a_hook_that_fails_leaves_nothing(oci: Runtime) -> None:
    config = oci.config()
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    oci.configure(config)
    assert "exit status 1" in oci("create", "a", check=False).stderr


def test_a_terminal_is_handed_over(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("tty; stty size; test -c /dev/console", terminal=True, consoleSize={"height": 30, "width": 90})
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)
        oci("create", "--console-socket", str(path), "a")
        with listening.accept()[0] as channel:
            (master,) = socket.recv_fds(channel, 100, 1)[1]
    oci("start", "a")
    assert said_on(master).split() == [b"/dev/pts/0", b"30", b"90"]
    oci("delete", "--force", "a")


def test_without_pivot_root(oci: Runtime) -> None:
    oci.shell("ls / | wc -l; test -e /proc/1/root/work && echo host; true")
    assert "host" not in oci("run", "--no-pivot", "a").stdout


def test_descriptors_are_kept_only_when_asked_for(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("ls /proc/self/fd | wc -l")
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as stream:
        os.dup2(stream.fileno(), 30)
        plain = oci("run", "a", pass_fds=(30,)).stdout
        kept = oci("run", "--preserve-fds", "28", "b", pass_fds=(30,)).stdout
        os.close(30)
    assert int(kept) == int(plain) + 1


def test_explain_prints_a_bundles_plan_and_starts_nothing(oci: Runtime) -> None:
    listing = oci("--explain", "create", "a").stdout
    assert "clone3 CLONE_NEWNS" in listing and listing.rstrip().endswith("execve sh -c true")


def test_the_cgroup_of_a_bundle_that_names_none_goes_with_its_parent(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["cgroupsPath"] = ""
    oci.configure(config)
    name = unique("a")
    oci("run", name)
    assert_no_cgroup(name, all_hierarchies())
