"""The lab: a namespace of its own, with a bridge that the host does not see."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import container
from runtime.errors import TestbedError
from runtime.plan.network import Attachment
from runtime.spec import Process, Spec
from testbed.lab import BRIDGE, Lab, link_of, mac_of
from tests.testbed.ports import require_fixed
from tests.waiting import until


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.root
def test_it_has_a_bridge_and_the_host_does_not() -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with Lab() as lab:
        assert os.readlink("/proc/thread-self/ns/net") != home
        assert lab.bridge_index == socket.if_nametoindex(BRIDGE)
        shown = ip("address", "show", BRIDGE)
        assert "10.77.0.1/16" in shown and ",UP>" in shown
    assert os.readlink("/proc/thread-self/ns/net") == home
    assert BRIDGE not in [name for _, name in socket.if_nameindex()]


@pytest.mark.root
def test_its_end_gives_the_home_namespace_back_after_an_error() -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(RuntimeError), Lab():
        raise RuntimeError
    assert os.readlink("/proc/thread-self/ns/net") == home


@pytest.mark.root
@pytest.mark.parametrize("lends_host", [False, True])
def test_what_asks_from_the_hosts_network_is_there(lends_host: bool) -> None:
    """In the lab that stands for it, or else where that was entered from; who asks stays where it is."""
    with socket.create_server(("127.0.0.1", 0)) as listening, Lab(lends_host=lends_host) as lab:
        inside = os.readlink("/proc/thread-self/ns/net")
        assert bool(lab.host_path) == lends_host and (not lends_host or Path(lab.host_path).exists())
        for on_host in (False, True):
            with lab.open_socket(on_host) as asking:
                assert (asking.connect_ex(listening.getsockname()) == 0) == (on_host and lends_host)
        assert os.readlink("/proc/thread-self/ns/net") == inside
    assert lab.host_path == ""


@pytest.mark.root
def test_neighbours_are_permanent() -> None:
    with Lab() as lab:
        link = lab.link(0, 1)
        assert f"{link.address.ip} dev {BRIDGE} lladdr {link.mac} PERMANENT" in ip("neighbour", "show")


@pytest.mark.root
def test_two_containers_reach_each_other_by_name(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    with Lab() as lab:
        links = [lab.link(0, service) for service in (0, 1)]
        hosts = tuple((f"s{i}", str(link.address.ip)) for i, link in enumerate(links))
        server = Process(args=("sh", "-c", "while true; do echo hello | busybox nc -l -p 80; done"))
        client = Process(args=("sh", "-c", "until busybox nc s0 80 </dev/null; do sleep 0.05; done"))
        spec = Spec(server, (str(busybox_layer),), "s0", hosts=hosts, link=links[0])
        with (tmp_path / "log").open("wb") as log:
            first = container.start(
                spec, name=f"{cgroup_parent}/s0", stdout=log.fileno(), attachment=Attachment(lab.bridge_index, 0)
            )
            second = container.start(
                replace(spec, process=client, hostname="s1", link=links[1]),
                name=f"{cgroup_parent}/s1",
                stdout=log.fileno(),
                attachment=Attachment(lab.bridge_index, 1),
            )
            status = second.wait(10)
            second.delete()
            first.delete()
        assert status == 0
        assert "hello" in (tmp_path / "log").read_text()
        until(lambda: len(socket.if_nameindex()) <= 2, 5, socket.if_nameindex)
        assert sorted(name for _, name in socket.if_nameindex()) == ["lo", BRIDGE]


def test_links_differ_by_application_and_service() -> None:
    links = {link_of(application, service) for application in range(20) for service in range(5)}
    assert len({link.mac for link in links}) == len({link.address for link in links}) == 100


def test_the_mac_says_the_address() -> None:
    assert mac_of(IPv4Address("10.77.1.10")) == "02:00:0a:4d:01:0a"


@pytest.mark.parametrize(("application", "service"), [(255, 0), (0, 200), (-1, 0)])
def test_addresses_run_out_with_an_error(application: int, service: int) -> None:
    with pytest.raises(TestbedError, match="no address left"):
        link_of(application, service)


# Sends, from the network namespace of the process it is given, frames from one MAC to another, one for each byte that
# it reads, and answers with that byte.
SPOOF = """
import os, socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
frame = bytes.fromhex(sys.argv[1] + sys.argv[2]) + bytes.fromhex("88b5") + bytes(46)
while word := os.read(0, 1):
    raw.send(frame)
    os.write(1, word)
"""


def datagrams(pid: int) -> int:
    """How many UDP datagrams have reached the process's network namespace, wanted there or not."""
    names, values = [
        line.split()[1:] for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    ]
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["InDatagrams"] + counted["NoPorts"]


@pytest.mark.root
def test_nobody_gets_anothers_traffic_by_sending_with_its_mac(
    busybox_layer: Path, cgroup_parent: str, tmp_path: Path
) -> None:
    sent = 100
    with Lab() as lab, (tmp_path / "log").open("wb") as log, ExitStack() as undo:
        started = []
        for number, name in enumerate(("victim", "thief")):
            spec = Spec(Process(("sleep", "99")), (str(busybox_layer),), name, link=lab.link(0, number))
            one = container.start(
                spec,
                name=f"{cgroup_parent}/{name}",
                stdout=log.fileno(),
                attachment=Attachment(lab.bridge_index, number),
            )
            undo.callback(one.delete)
            started.append(one)
        victim, thief = started
        link = link_of(0, 0)
        said = [mac.replace(":", "") for mac in (mac_of(IPv4Address("10.77.0.1")), link.mac)]
        command = ["nsenter", f"--net=/proc/{thief.process.pid}/ns/net", sys.executable, "-c", SPOOF, *said]
        spoofing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        undo.callback(spoofing.wait)
        assert spoofing.stdin is not None and spoofing.stdout is not None
        undo.callback(spoofing.stdin.close)
        sender = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        stolen = datagrams(thief.process.pid)
        for _ in range(sent):
            spoofing.stdin.write(b".")
            assert spoofing.stdout.read(1) == b"."
            sender.sendto(b"for the victim", (str(link.address.ip), 9))
        until(lambda: datagrams(victim.process.pid) == sent, 5, lambda: datagrams(victim.process.pid))
        assert datagrams(thief.process.pid) == stolen


@pytest.mark.root
def test_what_is_for_nobody_is_sent_to_no_port(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    with Lab() as lab, (tmp_path / "log").open("wb") as log:
        spec = Spec(Process(("sleep", "99")), (str(busybox_layer),), "one", link=lab.link(0, 0))
        one = container.start(
            spec, name=f"{cgroup_parent}/one", stdout=log.fileno(), attachment=Attachment(lab.bridge_index, 7)
        )
        try:
            require_fixed("v7", link_of(0, 0).mac)
        finally:
            one.delete()
