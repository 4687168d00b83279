"""Which libvirt a run may be connected to, and what is said when it cannot be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from runtime.errors import PrerequisiteError, UsageError
from testbed import doctor
from testbed.qemu.connection import check_uri, connect
from testbed.qemu.daemon import Daemon
from tests.waiting import until

NOWHERE = Path("/nonexistent")


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///embed",
        "qemu:///system",
        "qemu:///system?socket=/run/x",
        "qemu+unix:///system",
        "qemu+ssh://root@host/system",
        "qemu+ssh://host:2222/system?keyfile=/key",
    ],
)
def test_qemus_drivers_are_taken(uri: str) -> None:
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "no connection to QEMU by 'that'"),
        ("qemu", "no connection to QEMU by 'that'"),
        ("xen:///system", "by 'xen'"),
        ("qemu+tcp://host/system", "by 'qemu\\+tcp'"),
        ("lxc:///system", "the platform libvirt-lxc"),
        ("test:///default", "it runs nothing"),
        ("qemu:///session", "a user's own daemon"),
        ("qemu:///embed?root=/x", "the run's own"),
        ("qemu:///nothing", "has no /nothing"),
        ("qemu://host", "has no /"),
        ("qemu+ssh:///system", "names no host"),
    ],
)
def test_others_are_refused_with_the_reason(uri: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_uri(uri)


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    uri = f"qemu:///system?socket={quote(str(tmp_path / 'a socket'))}"
    with pytest.raises(PrerequisiteError, match=r"a socket.*No such file"), connect(uri, NOWHERE, NOWHERE):
        pass
    check = doctor.check_connection(uri)
    assert not check.ok and "libvirtd" in check.fix


def test_a_host_that_cannot_be_reached(tmp_path: Path) -> None:
    """A port of loopback that nobody listens at; ssh is asked for no password."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    uri = f"qemu+ssh://root@127.0.0.1:{port}/system?no_tty=1&no_verify=1"
    with (
        pytest.raises(PrerequisiteError, match=r"(?s)qemu\+ssh.*refused") as caught,
        connect(uri, NOWHERE, NOWHERE),
    ):
        pass
    assert "ssh 127.0.0.1" in caught.value.hint


@pytest.fixture
def ssh_uri(tmp_path: Path, libvirt_daemon: Daemon) -> Iterator[str]:
    """The URI of a libvirtd behind an ssh server, both the test's own.

    The server sees a home of root's with one key in it, and the daemon's sockets where a host's daemon has its own.
    """
    programs = ("ssh", "dropbear", "dropbearkey", "ssh-keygen", "virt-ssh-helper")
    missing = [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install dropbear-bin, openssh-client and libvirt-daemon")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    shutil.copy2(tmp_path / "key.pub", home / ".ssh" / "authorized_keys")
    hostkey = tmp_path / "hostkey"
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", str(hostkey)], check=True, capture_output=True)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    (tmp_path / "run" / "libvirt").mkdir(parents=True)
    script = 'mount --bind "$1" /root && mount --bind "$5" "$6/libvirt" && mount --rbind "$6" /run && '
    script += 'exec dropbear -F -E -s -r "$2" -p "127.0.0.1:$3" -P "$4"'
    sockets = str(libvirt_daemon.socket.parent)
    arguments = [str(home), str(hostkey), str(port), str(tmp_path / "pid"), sockets, str(tmp_path / "run")]
    client = tmp_path / "client"  # which must not learn the server's key in the real home
    client.write_text('#!/bin/sh\nexec ssh -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"\n')
    client.chmod(0o755)
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *arguments],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stderr=log,
        )

    def listens() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens)
    query = f"no_tty=1&no_verify=1&keyfile={quote(str(tmp_path / 'key'))}&command={quote(str(client))}"
    yield f"qemu+ssh://root@127.0.0.1:{port}/system?{query}"
    server.terminate()
    server.wait()


@pytest.mark.root
def test_a_daemon_by_ssh(ssh_uri: str, libvirt_daemon: Daemon) -> None:
    with connect(check_uri(ssh_uri), NOWHERE, NOWHERE) as daemon:
        assert daemon.current().getType() == "QEMU"
        assert not daemon.embedded and not daemon.lost()
        libvirt_daemon.kill()
        until(daemon.lost)
    check = doctor.check_connection(ssh_uri)
    assert not check.ok and "ssh 127.0.0.1" in check.fix
