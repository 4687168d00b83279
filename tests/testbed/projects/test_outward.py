"""The way out of an application that is up: to other networks and their names, and not to the host's loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runtime.spec import Process, Resources, Spec
from testbed.lab import GATEWAY, Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.protocol import Instance, Platform
from testbed.platforms.vm import VmPlatform
from testbed.projects import outward
from testbed.projects.outward import Outward, find_name_server
from tests.waiting import until

# Each line is what was reached, or not: by name server and by two ports of the host's, of which one is its loopback's.
SCRIPT = """
busybox nslookup out.example 2>&1 | busybox grep -c 192.0.2.7
echo "{address} $(busybox nc -w 20 {address} {port} </dev/null 2>/dev/null)"
for at in 10.0.2.2 {gateway}; do
    echo "$at $(busybox nc -w 2 $at {port} </dev/null 2>/dev/null)"
done
busybox cat /etc/resolv.conf
"""
LAST = f"nameserver {GATEWAY}"


def test_the_first_name_server_that_has_an_address_is_asked() -> None:
    assert find_name_server("# nameserver 10.0.0.1\nsearch x\nnameserver host\nnameserver 127.0.0.53\n") == "127.0.0.53"
    assert find_name_server("nameserver ::1\nnameserver 10.0.0.2\n") == "::1"
    assert find_name_server("nameserver\n") == find_name_server("") == ""


def find_address() -> str:
    """Return an address of the host's that is not of its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the host has no address but its loopback's")
        return str(one.getsockname()[0])


@contextmanager
def answering(address: str, text: bytes) -> Iterator[int]:
    """Within, whoever connects to the returned port of the address is told the text."""
    with socket.create_server((address, 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(text)

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def naming(address: str) -> Iterator[None]:
    """Within, a name server at the address says of every name that it is 192.0.2.7 (RFC 1035)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((address, 53))

        def answer() -> None:
            while True:
                question, asker = one.recvfrom(512)
                if not question:
                    return
                end = question.index(b"\0", 12) + 5
                found = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + bytes((192, 0, 2, 7))
                wanted = question[end - 4 : end - 2] == b"\0\x01"
                head = question[:2] + b"\x81\x80\0\x01\0" + (b"\x01" if wanted else b"\0") + bytes(4)
                one.sendto(head + question[12:end] + (found if wanted else b""), asker)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (address, 53))
            thread.join()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["container", pytest.param("vm", marks=pytest.mark.vm)])
def test_services_reach_other_networks_and_not_the_hosts_loopback(
    make_vm: Callable[..., VmPlatform],
    layer: Path,
    run_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(outward, "_RESOLVER", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.153\n")
    address = find_address()
    with ExitStack() as undo:
        undo.enter_context(naming("127.0.0.153"))
        port = undo.enter_context(answering(address, b"of the host"))
        with socket.socket() as other:  # the loopback's port of that number says something else
            other.bind(("127.0.0.1", port))
            other.listen()
            lab = Lab(outward=True)
            way = undo.enter_context(Outward())
            lab.when_entered(way.connect)
            platform: Platform = make_vm("vm") if kind == "vm" else ContainerPlatform(run_name, lab)
            undo.callback(platform.close)
            undo.enter_context(lab)
            script = SCRIPT.format(address=address, port=port, gateway=GATEWAY)
            process = Process(("sh", "-c", f"{script}exec sleep 100"))
            spec = Spec(process, (str(layer),), "web", Resources(128 << 20, 0.5), lab.link(0, 0), resolver=f"{LAST}\n")
            one = Instance("a0-web", 0, {"web": spec}, tmp_path / "log")
            undo.callback(platform.stop, one)
            platform.start(one)
            platform.started(one, 60)
            until(lambda: LAST in one.log.read_text(), 40, one.log.read_text)
    lines = [line.rpartition("] ")[2] for line in one.log.read_text().splitlines()]
    assert "1" in lines, "the name was found"
    assert f"{address} of the host" in lines
    assert "10.0.2.2 " in lines and f"{GATEWAY} " in lines, "neither slirp4netns's gateway nor the lab's is the host"


@pytest.mark.root
def test_a_lab_that_does_not_lead_out_has_no_way() -> None:
    with Lab() as lab:
        assert lab.link(0, 0).gateway is None
        assert Path("/proc/thread-self/net/route").read_text().count("00000000\t00000000") == 0
