"""What a container mounts and unmounts stays its own, on a host whose mounts are shared as every systemd host's are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.command_line import Runtime
from tests.runtime.shared_host import SharedHost, shared_host

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
VALUES = ("", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "run, and the same again": [("run", "a"), ("run", "a")],
    "run --no-pivot": [("run", "--no-pivot", "a")],
    "create, start, delete": [("create", "a"), ("start", "a"), ("delete", "--force", "a")],
    "create, delete": [("create", "a"), ("delete", "--force", "a")],
    "exec": [("run", "--detach", "a"), ("exec", "a", "true"), ("delete", "--force", "a")],
}


@pytest.fixture
def host() -> Iterator[SharedHost]:
    with shared_host() as found:
        yield found


@pytest.fixture
def volume(oci: Runtime, host: SharedHost) -> Iterator[Path]:
    """A directory that is a mount of its own on the host, with another mount in it."""
    volume = oci.bundle.parent / "volume"
    volume.mkdir()
    host.run("mount", "-t", "tmpfs", "outer", str(volume))
    host.run("sh", "-c", f"mkdir {volume}/nested {volume}/hidden {volume}/fixed {volume}/below")
    host.run("mount", "-t", "tmpfs", "inner", str(volume / "below"))
    oci.inside = (*host.inside, "env", f"--chdir={oci.bundle}")
    yield volume
    oci.inside = ()


def configure(oci: Runtime, volume: Path, value: str, *options: str, mapped: bool = False) -> None:
    """A volume with something mounted, hidden and write-protected in it, and the host's /sys likewise."""
    config: dict[str, Any] = oci.config()
    linux = config["linux"]
    if value:
        linux["rootfsPropagation"] = value
    if mapped:
        linux.update(uidMappings=MAPPINGS, gidMappings=MAPPINGS)
        linux["namespaces"].append({"type": "user"})
        subprocess.run(["chown", "-R", "100000:100000", oci.bundle / "rootfs"], check=True)
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in ("/sys", "/sys/fs/cgroup")]
    config["mounts"] += [
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
        {"destination": "/data", "type": "bind", "source": str(volume), "options": ["rbind", *options]},
        {"destination": "/data/nested", "type": "tmpfs", "source": "tmpfs"},
    ]
    linux["maskedPaths"] += ["/data/hidden"]
    linux["readonlyPaths"] += ["/data/fixed"] if "unbindable" not in options else []
    oci.configure(config)


def seen(mountinfo: str, target: str) -> set[str]:
    """How the mount on ``target`` belongs to peer groups: the words between its options and its type."""
    lines = [line.split() for line in mountinfo.splitlines()]
    (fields,) = [fields for fields in lines if fields[4] == target]
    return {word.partition(":")[0] for word in fields[6 : fields.index("-")]}


@pytest.mark.parametrize("mapped", [False, True], ids=["", "user namespace"])
@pytest.mark.parametrize("value", VALUES)
def test_the_hosts_mounts_stay_as_they_are(
    oci: Runtime, host: SharedHost, volume: Path, value: str, mapped: bool
) -> None:
    configure(oci, volume, value, mapped=mapped)
    before = host.mounts()
    for name, commands in COMMANDS.items():
        oci.shell("true" if name.startswith("run") else "sleep 1000")
        for command in commands:
            oci(*command)
            assert host.mounts() == before, (name, command)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "user namespace"])
@pytest.mark.parametrize(
    ("value", "root", "default"),
    [
        ("", {"master"}, {"master"}),
        ("private", set(), {"master"}),
        ("rprivate", set(), set()),
        ("slave", {"master"}, {"master"}),
        ("rslave", {"master"}, {"master"}),
        ("shared", {"shared", "master"}, {"master"}),
        ("rshared", {"shared", "master"}, {"shared", "master"}),
        ("unbindable", {"unbindable"}, {"master"}),
        ("runbindable", {"unbindable"}, {"unbindable"}),
    ],
)
def test_what_is_asked_for_is_done_to_the_containers_own_root(
    oci: Runtime, volume: Path, value: str, root: set[str], default: set[str], mapped: bool
) -> None:
    """As runc shows it, but that what is private, slave or shared there without an r leaves the mounts below peers of
    the host's, and that of runc 1.1 a shared root is private."""
    configure(oci, volume, value, mapped=mapped)
    oci.shell("cat /proc/self/mountinfo")
    said = oci("run", "a").stdout
    assert (seen(said, "/"), seen(said, "/data")) == (root, default)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "user namespace"])
@pytest.mark.parametrize(
    ("value", "option", "words"),
    [
        ("", "private", set()),
        ("", "rslave", {"master"}),
        ("", "shared", {"shared", "master"}),
        ("rslave", "rshared", {"shared", "master"}),
        ("rprivate", "shared", {"shared"}),
        ("shared", "private", set()),
        ("shared", "rslave", {"master"}),
        ("slave", "unbindable", {"unbindable"}),
    ],
)
def test_a_bind_says_how_it_propagates(
    oci: Runtime, host: SharedHost, volume: Path, value: str, option: str, words: set[str], mapped: bool
) -> None:
    configure(oci, volume, value, option, mapped=mapped)
    oci.shell("cat /proc/self/mountinfo")
    before = host.mounts()
    assert seen(oci("run", "a").stdout, "/data") == words
    assert host.mounts() == before


@pytest.mark.parametrize("value", ["shared", "rshared"])
def test_a_shared_volume_of_a_shared_root_reaches_the_host(
    oci: Runtime, host: SharedHost, volume: Path, value: str
) -> None:
    """What ``podman run --volume A:B:shared`` asks for, both ways."""
    configure(oci, volume, value, "rshared")
    config = oci.config()
    config["mounts"].pop()  # the one in the volume, which would be the host's as well
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    oci.configure(config)
    oci.shell("mount -t tmpfs made-inside /data/nested; while ! grep made-outside /proc/self/mountinfo; do :; done")
    before = host.mounts()
    container = subprocess.Popen(oci.command("run", "a"), cwd=oci.bundle, stdin=subprocess.DEVNULL)
    while not any("made-inside" in line for line in host.mounts()):
        assert container.poll() is None
    host.run("mount", "-t", "tmpfs", "made-outside", str(volume / "hidden"))
    assert container.wait(30) == 0
    host.run("umount", str(volume / "hidden"), str(volume / "nested"))
    assert host.mounts() == before


def test_a_failed_create_leaves_nothing_mounted(oci: Runtime, host: SharedHost, volume: Path) -> None:
    configure(oci, volume, "shared", "rshared")
    config = oci.config()
    config["mounts"].append({"destination": "/x", "type": "no-such-type", "source": "none"})
    config["mounts"].pop(-2)
    oci.configure(config)
    before = host.mounts()
    assert oci("create", "a", check=False).returncode != 0
    assert host.mounts() == before


def test_what_spec_writes_for_an_ordinary_user_and_root_runs(oci: Runtime, host: SharedHost, volume: Path) -> None:
    """It binds the host's /sys, of which parts are then masked."""
    (oci.bundle / "config.json").unlink()
    oci("spec", "--rootless")
    oci.shell("grep ' /sys/firmware ' /proc/self/mountinfo")
    before = host.mounts()
    assert oci("run", "a").stdout
    assert host.mounts() == before


@pytest.mark.parametrize("how", ["on tmpfs", "on disk, as a build's RUN"])
def test_the_interfaces_containers_leave_the_hosts_mounts(
    host: SharedHost, busybox_layer: Path, tmp_path: Path, cgroup_parent: str, how: str
) -> None:
    script = """
import sys
from runtime.container import run
from runtime.plan.workload import Building
from runtime.spec import CALLERS_NETWORK, Process, Spec
from runtime.unionfs.overlay import WritableLayer
layer, name, *writable = sys.argv[1:]
spec = Spec(Process(("sh", "-c", "echo done")), (layer,), "name", shared=CALLERS_NETWORK if writable else ())
sys.exit(run(spec, name=name, building=Building(WritableLayer(*writable)) if writable else None))
"""
    writable = [tmp_path / "upper", tmp_path / "work"] if how != "on tmpfs" else []
    for directory in writable:
        directory.mkdir()
    before = host.mounts()
    python = ("env", f"--chdir={REPOSITORY}", sys.executable, "-c", script)
    assert host.run(*python, str(busybox_layer), f"{cgroup_parent}/a", *map(str, writable)) == "done\n"
    assert host.mounts() == before


def inherit(oci: Runtime, **linux: Any) -> None:
    """A configuration without a mount namespace, and without what would need one."""
    config = oci.config()
    config["mounts"] = []
    config["linux"].update(maskedPaths=[], readonlyPaths=[], **linux)
    config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "mount"]
    oci.configure(config)


def test_without_a_mount_namespace_the_callers_is_inherited(oci: Runtime, host: SharedHost, volume: Path) -> None:
    """As crun does it: the root directory is the container's own, for further processes and hooks as well."""
    (oci.bundle / "rootfs" / "hook").write_text("#!/bin/sh\necho hook > /ran\n")
    (oci.bundle / "rootfs" / "hook").chmod(0o755)
    inherit(oci)
    config = oci.config()
    config["hooks"] = {"startContainer": [{"path": "/hook"}]}
    oci.configure(config)
    oci.shell("sleep 1000")
    before = host.mounts()
    oci("run", "--detach", "a")
    pid = oci.state("a")["pid"]
    assert Path(f"/proc/{pid}/ns/mnt").samefile(f"/proc/{host.pid}/ns/mnt")
    assert set(oci("exec", "a", "ls", "/").stdout.split()) == {"bin", "dev", "etc", "hook", "proc", "ran", "sys"}
    assert oci("exec", "a", "stat", "-c", "%t %T", "/dev/null").stdout == "1 3\n"
    oci("delete", "--force", "a")
    oci.shell("ls /")
    assert oci("run", "a").stdout == oci("run", "a").stdout == "bin\ndev\netc\nhook\nproc\nran\nsys\n"
    assert host.mounts() == before


def test_the_hosts_mount_namespace_is_not_joined(oci: Runtime) -> None:
    """Its root would be exchanged under all that run there."""
    config = oci.config()
    namespaces = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "mount"]
    config["linux"]["namespaces"] = [*namespaces, {"type": "mount", "path": "/proc/self/ns/mnt"}]
    oci.configure(config)
    oci.inside = ("unshare", "--mount", "env", f"--chdir={oci.bundle}")
    assert "host's mount namespace" in oci("run", "a", check=False).stderr
    oci.inside = ()


def test_a_mount_namespace_that_is_joined(oci: Runtime, host: SharedHost, volume: Path) -> None:
    """The container's root becomes that of the namespace, which is another's than the host's."""
    with shared_host() as other:
        config = oci.config()
        namespaces = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "mount"]
        config["linux"]["namespaces"] = [*namespaces, {"type": "mount", "path": f"/proc/{other.pid}/ns/mnt"}]
        oci.configure(config)
        oci.shell("ls /")
        before = host.mounts()
        assert set(oci("run", "a").stdout.split()) == {"bin", "dev", "etc", "proc", "sys"}
        assert host.mounts() == before
