"""Where mounts and devices of a configuration end up, through the command line: as runc's and crun's do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import Runtime

pytestmark = pytest.mark.root

MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def mapped(oci: Runtime, **linux: Any) -> None:
    """In a user namespace of its own, and what else is to change below ``linux``."""
    config = oci.config()
    config["linux"].update(uidMappings=MAPPINGS, gidMappings=MAPPINGS, **linux)
    config["linux"]["namespaces"].append({"type": "user"})
    oci.configure(config)
    subprocess.run(["chown", "-R", "100000:100000", oci.bundle / "rootfs"], check=True)


def mount(oci: Runtime, destination: str, kind: str, source: str | Path, *options: str) -> None:
    config = oci.config()
    entry = {"destination": destination, "type": kind, "source": str(source), "options": list(options)}
    config["mounts"].append(entry)
    oci.configure(config)


def options_of(mountinfo: str, target: str) -> set[str]:
    """The options of the last mount on ``target``."""
    lines = [line.split() for line in mountinfo.splitlines()]
    return set([fields for fields in lines if fields[4:5] == [target]][-1][5].split(","))


@pytest.mark.parametrize(
    ("links", "made"),
    [
        ({"etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf"}, "run/systemd/resolve/stub-resolv.conf"),
        ({"etc/resolv.conf": "/usr/share/zoneinfo/Etc/UTC"}, "usr/share/zoneinfo/Etc/UTC"),
        ({"etc/resolv.conf": "other", "etc/other": "/far/away"}, "far/away"),
        ({"etc/resolv.conf": "/run/now/file", "run": "var/run"}, "var/run/now/file"),
        ({"etc/resolv.conf": "../../../../../../../../made"}, "made"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_mount_on_a_link_that_leads_to_nothing(oci: Runtime, links: dict[str, str], made: str, kind: str) -> None:
    """What the link leads to is made inside the root (an image's resolv.conf, its localtime)."""
    rootfs = oci.bundle / "rootfs"
    for name, target in links.items():
        (rootfs / name).symlink_to(target)
    source = oci.bundle / "source"
    if kind == "directory":
        source.mkdir()
    content = source / "content" if kind == "directory" else source
    content.write_text("bound\n")
    mount(oci, "/etc/resolv.conf", "bind", source, "bind")
    oci.shell(f"cat /etc/resolv.conf{'/content' if kind == 'directory' else ''}")
    assert oci("run", "a").stdout == "bound\n"
    assert (rootfs / made).is_dir() == (kind == "directory") and (rootfs / made).exists()


def test_links_that_lead_to_each_other_are_an_error(oci: Runtime) -> None:
    (oci.bundle / "rootfs" / "one").symlink_to("two")
    (oci.bundle / "rootfs" / "two").symlink_to("one")
    mount(oci, "/one", "tmpfs", "tmpfs")
    assert "Too many levels of symbolic links" in oci("run", "a", check=False).stderr


def test_a_link_without_an_end_is_an_error(oci: Runtime) -> None:
    """Each of its ends is a link's name with a part more that is missing."""
    (oci.bundle / "rootfs" / "one").symlink_to("one/more")
    mount(oci, "/one", "tmpfs", "tmpfs")
    assert "Too many levels of symbolic links" in oci("run", "a", check=False).stderr


@pytest.mark.parametrize("destination", ["/../../data", "data/../../../data", "/data/.", "//data//x/.."])
def test_a_destination_is_below_the_root_whatever_leads_up(oci: Runtime, destination: str) -> None:
    mount(oci, destination, "tmpfs", "tmpfs")
    oci.shell("grep -c ' /data ' /proc/self/mountinfo")
    assert oci("run", "a").stdout == "1\n"
    assert [path.name for path in (oci.bundle / "rootfs").iterdir() if path.name in ("data", "x")] == ["data"]


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("destination", ["/", "/..", ""])
def test_a_mount_on_the_root_is_the_root(oci: Runtime, destination: str, users: bool) -> None:
    """What is mounted after it is mounted in it."""
    shutil.copytree(oci.bundle / "rootfs", oci.bundle / "other", symlinks=True)
    (oci.bundle / "other" / "here").touch()
    if users:
        mapped(oci)
        subprocess.run(["chown", "-R", "100000:100000", oci.bundle / "other"], check=True)
    config = oci.config()
    config["mounts"].insert(0, {"destination": destination, "type": "bind", "source": "other", "options": ["rbind"]})
    config["root"]["readonly"] = True
    oci.configure(config)
    oci.shell("ls /; cat /proc/self/stat | wc -l; touch /x 2>&1 | grep -o Read-only; echo > /dev/null && echo written")
    expected = {"bin", "dev", "etc", "here", "proc", "sys", "1", "Read-only", "written"}
    assert set(oci("run", "a").stdout.split()) == expected


def test_devices_for_a_user_namespace_are_made_outside(oci: Runtime) -> None:
    """With the mode and owner of the configuration, and whether the host has them or not."""
    devices = [
        {"path": "/dev/my/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/nobodys", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 70000},
        {"path": "/dev/queue", "type": "p", "fileMode": 0o600},
    ]
    mapped(oci, devices=devices)
    oci.shell(
        "stat -c '%n %F %a %u %g %t %T' /dev/null /dev/my/zero /dev/nobodys /dev/queue; head -c 3 /dev/zero | wc -c"
    )
    *lines, size = oci("run", "a").stdout.splitlines()
    assert lines == [
        "/dev/null character special file 666 0 0 1 3",
        "/dev/my/zero character special file 640 5 6 1 5",
        "/dev/nobodys character special file 600 65534 0 1 3",
        "/dev/queue fifo 600 0 0 0 0",
    ]
    assert size == "3"


def test_a_device_that_is_made_outside_runs_no_program(oci: Runtime) -> None:
    mapped(oci)
    oci.shell("cat /proc/self/mountinfo")
    said = oci("run", "a").stdout
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        found = options_of(said, f"/dev/{name}")
        assert {"nosuid", "noexec"} <= found and "nodev" not in found


@pytest.mark.skipif(not shutil.which("capsh"), reason="capsh is not installed (libcap2-bin)")
def test_devices_are_the_hosts_where_we_may_make_none(oci: Runtime) -> None:
    """We are root, but one that is confined itself."""
    mapped(oci)
    oci.shell("echo > /dev/null; stat -c '%u %t %T' /dev/null; cat /proc/self/mountinfo")
    oci.inside = ("capsh", "--drop=cap_mknod", "--shell=/usr/bin/env", "--")
    said = oci("run", "a").stdout
    assert said.startswith("65534 1 3\n") and {"nosuid", "noexec"} <= options_of(said, "/dev/null")


def test_sys_is_the_hosts_where_the_network_namespace_is(oci: Runtime) -> None:
    """A new sysfs may be mounted only by the user namespace that owns the network namespace."""
    mapped(oci)
    config = oci.config()
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"]
    oci.configure(config)
    oci.shell("ls /sys/class/net; cat /proc/self/mountinfo")
    said = oci("run", "a").stdout
    assert set(os.listdir("/sys/class/net")) <= set(said.split())
    lines = [line.split() for line in said.splitlines()]
    shown = [set(fields[5].split(",")) for fields in lines if fields[4:] and fields[4].startswith("/sys")]
    assert shown and all({"ro", "nosuid", "nodev", "noexec"} <= options for options in shown)


@pytest.mark.parametrize("users", [False, True])
def test_a_dev_that_is_bound_stays_as_it_is(oci: Runtime, users: bool) -> None:
    """It is the host's: what is made in it would be made there."""
    dev = oci.bundle / "dev"
    dev.mkdir()
    os.mknod(dev / "null", 0o20666, os.makedev(1, 3))
    (dev / "null").chmod(0o666)
    if users:
        mapped(oci)
    config = oci.config()
    config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]
    config["mounts"].append({"destination": "/dev/", "type": "bind", "source": str(dev), "options": ["rbind"]})
    config["linux"]["devices"] = [{"path": "/dev/extra", "type": "c", "major": 1, "minor": 5}]
    oci.configure(config)
    oci.shell("ls /dev; echo > /dev/null && echo written")
    assert oci("run", "a").stdout.split() == ["null", "written"]
    assert os.listdir(dev) == ["null"]


def test_a_dev_that_is_read_only_has_its_devices(oci: Runtime) -> None:
    config = oci.config()
    (dev,) = [m for m in config["mounts"] if m["destination"] == "/dev"]
    dev["options"].append("ro")
    oci.configure(config)
    oci.shell("echo > /dev/null && touch /dev/x 2>&1 | grep -o Read-only; ls /dev/pts")
    assert oci("run", "a").stdout.split() == ["Read-only", "ptmx"]


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else_in_the_place_of_a_device_is_an_error(oci: Runtime, kind: str) -> None:
    place = oci.bundle / "rootfs" / "dev" / "zero"
    if kind == "file":
        place.write_text("not a device")
    elif kind == "directory":
        place.mkdir()
    else:
        place.symlink_to("null")
    config = oci.config()
    config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]
    oci.configure(config)
    done = oci("run", "a", check=False)
    assert done.returncode == 1 and "dev/zero" in done.stderr and "no device of this kind" in done.stderr


def test_a_device_that_is_there_is_taken(oci: Runtime) -> None:
    config = oci.config()
    config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]
    oci.configure(config)
    oci.shell("echo > /dev/null && stat -c '%t %T' /dev/zero")
    for _ in range(2):
        assert oci("run", "a").stdout == "1 5\n"


@pytest.mark.skipif(all_hierarchies().mode != "hybrid", reason="this host has not both v1 and v2 of cgroups")
@pytest.mark.parametrize(
    ("options", "words"), [((), "rw nosuid nodev noexec"), (("ro", "noexec"), "ro nosuid nodev noexec")]
)
def test_version_two_of_cgroups_beside_version_one(oci: Runtime, options: tuple[str, ...], words: str) -> None:
    """Asked for by its own name it is v2 alone, and the container's own cgroup of it."""
    config = oci.config()
    config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"]
    config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": list(options)}
    )
    oci.configure(config)
    oci.shell("cat /sys/fs/cgroup/cgroup.procs; cat /proc/self/mountinfo")
    said = oci("run", "a").stdout
    (line,) = [line for line in said.splitlines() if " /sys/fs/cgroup" in line]
    assert " - cgroup2 " in line and set(words.split()) <= options_of(said, "/sys/fs/cgroup")
    assert said.startswith("1\n")  # the container's processes, not the host's


@pytest.mark.skipif(all_hierarchies().mode != "hybrid", reason="this host has not both v1 and v2 of cgroups")
def test_an_option_that_cgroups_do_not_have_is_an_error(oci: Runtime) -> None:
    mount(oci, "/cg", "cgroup2", "cgroup", "no-such-option")
    assert "cgroup2" in oci("run", "a", check=False).stderr


def test_a_missing_working_directory_under_a_read_only_root_is_made(oci: Runtime) -> None:
    config = oci.config()
    config["root"]["readonly"] = True
    config["process"]["cwd"] = "/made/for it"
    oci.configure(config)
    oci.shell("pwd; touch x 2>&1 | grep -o Read-only", cwd="/made/for it")
    assert oci("run", "a").stdout == "/made/for it\nRead-only\n"
