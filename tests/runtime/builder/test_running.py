"""What a RUN reaches of the network, and what it does not: attacks from a real RUN, real services on the host."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.builder.trust import VARIABLES
from runtime.images.base import apt_options, package_urls
from runtime.images.layers import walk
from runtime.images.model import Image
from runtime.images.rootfs import read_text
from runtime.outgoing import Service, loopback_services

Build = Callable[[str], Image]


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
def test_a_run_trusts_whom_the_hosts_environment_says_and_the_image_keeps_nothing_of_it(
    build_text: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    bundle, other = tmp_path / "bundle.pem", tmp_path / "other.pem"
    bundle.write_text("whom to trust\n")
    other.write_text("another\n")
    for name, path in (("SSL_CERT_FILE", bundle), ("PIP_CERT", bundle), ("CURL_CA_BUNDLE", other)):
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "nowhere"))
    image = build_text(
        "FROM tiny\nENV CURL_CA_BUNDLE=/own\nRUN cat $SSL_CERT_FILE $PIP_CERT > /seen; echo $GIT_SSL_CAINFO >> /seen\n"
        "RUN echo x > $SSL_CERT_FILE || echo $CURL_CA_BUNDLE > /own\n"
        "RUN --network=none echo ${SSL_CERT_FILE:-none} > /alone\n"
    )
    assert read_text("/seen", image.layers) == "whom to trust\n" * 2 + "\n"
    assert read_text("/own", image.layers) == "/own\n", "what the image says holds, and the file is read only"
    assert read_text("/alone", image.layers) == "none\n"
    assert [name for layer in image.layers[1:] for name, _ in walk(layer.path)] == ["seen", "own", "alone"]
    assert bundle.read_text() == "whom to trust\n"
