"""A network namespace that leads out: which services of the loopback it has, and that it leaves the host as it was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from runtime.errors import PrerequisiteError
from runtime.outgoing import INTERFACE, Service, loopback_services, outgoing
from tests.runtime.shared_host import shared_host


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("http://127.0.0.1:3142", Service("127.0.0.1", 3142)),
        ("http://localhost:3142/", Service("127.0.0.1", 3142)),
        ("127.0.0.1:3142", Service("127.0.0.1", 3142)),
        ("http://user:secret@127.0.0.9:1", Service("127.0.0.9", 1)),
        ("http://[::1]:8080/debian", Service("::1", 8080)),
        ("http://127.0.0.1/debian", Service("127.0.0.1", 80)),
        ("https://localhost", Service("127.0.0.1", 443)),
        ("http://127.0.0.1:70000", None),
        ("http://mirror.example.org/debian", None),
        ("http://127.0.0.1.example.org:80", None),
        ("DIRECT", None),
        ("localhost,127.0.0.1", None),  # no_proxy
    ],
)
def test_services_on_loopback_are_found_in_urls(url: str, service: Service | None) -> None:
    assert loopback_services([url], "") == ((service,) if service else ())


def test_a_resolver_on_loopback_is_a_service_by_both_protocols() -> None:
    text = "# nameserver 127.0.0.1\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0\nnameserver\n"
    assert loopback_services([], text) == (Service("127.0.0.53", 53), Service("127.0.0.53", 53, udp=True))


@pytest.mark.root
def test_what_listens_by_udp_on_loopback_is_relayed_and_ends_with_the_build() -> None:
    with ExitStack() as opened:
        inside = opened.enter_context(subprocess.Popen(["unshare", "--net", "sleep", "60"]))
        opened.callback(inside.kill)
        while os.readlink(f"/proc/{inside.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        service = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        service.bind(("127.0.0.53", 0))
        port = service.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                question, asker = service.recvfrom(100)
                service.sendto(question.upper(), asker)

        threading.Thread(target=answer, daemon=True).start()
        ask = f"""import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
for word in (b'first', b'second'): s.sendto(word, ('127.0.0.53', {port})); print(s.recv(100))"""
        enter = ["nsenter", f"--net=/proc/{inside.pid}/ns/net"]
        with outgoing(inside.pid, [Service("127.0.0.53", port, udp=True)], dict(os.environ)):
            done = subprocess.run([*enter, "python3", "-c", ask], capture_output=True, text=True, check=True)
            assert done.stdout.split() == ["b'FIRST'", "b'SECOND'"]
            assert INTERFACE in subprocess.run([*enter, "ip", "-br", "link"], capture_output=True, text=True).stdout
        assert INTERFACE not in subprocess.run([*enter, "ip", "-br", "link"], capture_output=True, text=True).stdout


@pytest.mark.root
def test_a_host_that_shares_its_mounts_keeps_them() -> None:
    program = """import os, subprocess
from runtime.outgoing import outgoing
inside = subprocess.Popen(["unshare", "--net", "sleep", "60"])
while os.readlink(f"/proc/{inside.pid}/ns/net") == os.readlink("/proc/self/ns/net"): pass
with outgoing(inside.pid, [], dict(os.environ)): print("connected")
inside.kill()"""
    with shared_host() as host:
        before = host.mounts()
        assert host.run(sys.executable, "-c", program) == "connected\n"
        assert host.mounts() == before


@pytest.mark.root
def test_slirp4netns_that_fails_or_is_missing_is_named() -> None:
    with (
        pytest.raises(PrerequisiteError, match="slirp4netns is not installed"),
        outgoing(os.getpid(), [], {"PATH": "/nowhere"}),
    ):
        raise AssertionError
    with (
        pytest.raises(PrerequisiteError, match="connect to the network: slirp4netns: "),
        outgoing(2**22 + 1, [], dict(os.environ)),
    ):
        raise AssertionError
