"""What a RUN reaches of the network, and what it does not: attacks from a real RUN, real services on the host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.builder.outgoing import INTERFACE, Service, loopback_services, outgoing
from runtime.errors import PrerequisiteError
from runtime.images.base import apt_options, package_urls
from runtime.images.layers import walk
from runtime.images.model import Image
from runtime.images.rootfs import read_text
from tests.runtime.shared_host import shared_host

Build = Callable[[str], Image]


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


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An HTTP proxy on the host's loopback, configured by the environment; what it was asked for."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"by the proxy\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked
        server.shutdown()


@pytest.mark.root
def test_a_run_reaches_nothing_of_the_hosts(build_text: Build, context: Path, proxy: list[str]) -> None:
    command = [
        "gcc",
        "-static",
        "-w",
        "-D_GNU_SOURCE",
        "-o",
        str(context / "probe"),
        str(Path(__file__).with_name("probe.c")),
    ]
    subprocess.run(command, check=True)
    name = f"testbed-{os.getpid()}"
    with ExitStack() as opened:
        service = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        wildcard = opened.enter_context(socket.create_server(("127.0.0.53", 0)))
        abstract = opened.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        ports = f"{service.getsockname()[1]} {wildcard.getsockname()[1]}"
        image = build_text(
            f"FROM tiny\nCOPY probe /probe\nRUN /probe {name} {ports} > /said; cat /proc/self/status >> /said\n"
        )
    said = read_text("/said", image.layers).splitlines()
    attempts = [line.split() for line in said if ":" not in line]
    assert len(attempts) == 13
    assert [attempt for attempt in attempts if attempt[1] == "ok"] == []
    status = dict(line.split(":\t") for line in said if line.startswith(("Seccomp:", "CapBnd:")))
    assert status["Seccomp"].split() == ["2"]
    assert not int(status["CapBnd"], 16) & 1 << 13  # CAP_NET_RAW


@pytest.mark.root
def test_a_run_has_the_filter_as_another_user_too_and_may_use_set_user_id_programs(
    build_text: Build, context: Path
) -> None:
    program = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("%d\\n", geteuid()); }'
    command = ["gcc", "-static", "-x", "c", "-o", str(context / "effective"), "-"]
    subprocess.run(command, input=program, text=True, check=True)
    image = build_text(
        "FROM tiny\nCOPY effective /bin/\nRUN chmod 4755 /bin/effective && chmod 777 /srv\n"
        "USER alice\nRUN grep -E 'Seccomp|NoNew' /proc/self/status > /srv/said; effective >> /srv/said\n"
    )
    said = read_text("/srv/said", image.layers)
    assert said.split() == ["NoNewPrivs:", "0", "Seccomp:", "2", "Seccomp_filters:", "1", "0"]


@pytest.mark.root
def test_a_proxy_on_the_hosts_loopback_is_reached_and_localhost_has_a_name(build_text: Build, proxy: list[str]) -> None:
    image = build_text(
        "FROM tiny\nRUN wget -q -O /said http://example.invalid/x; ping -c 1 localhost > /ping 2>&1; true\n"
    )
    assert read_text("/said", image.layers) == "by the proxy\n"
    assert "PING localhost (127.0.0.1)" in read_text("/ping", image.layers)
    assert proxy == ["http://example.invalid/x"]


@pytest.mark.root
def test_apts_configuration_is_the_hosts_in_a_run_and_not_the_images(
    build_text: Build, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:3142";\nAcquire::Retries "7";\n')
    monkeypatch.setenv("APT_CONFIG", str(context / "apt.conf"))
    apt_options.cache_clear()
    try:
        assert Service("127.0.0.1", 3142) in loopback_services(package_urls(), "")
        image = build_text("FROM tiny\nRUN mkdir -p /etc/apt/apt.conf.d\nRUN cat /etc/apt/apt.conf.d/* > /said\n")
    finally:
        apt_options.cache_clear()
    assert 'Acquire::http::Proxy "http://127.0.0.1:3142";\n' in read_text("/said", image.layers)
    assert {name for name, _ in walk(image.layers[-1].path)} == {"said"}


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
from runtime.builder.outgoing import outgoing
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
