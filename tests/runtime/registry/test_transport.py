from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.registry.answers import Limits
from runtime.registry.errors import CutError, RegistryError
from runtime.registry.transport import Transport, pause_s
from tests.runtime.registry.servers import Exchange, faulty, raw_server

QUICK = Limits(head_s=0.5, stall_s=0.5, least_bytes=1000, attempts=3, pause_s=0.001)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def transport() -> Iterator[Transport]:
    with Transport(QUICK) as made:
        yield made


def get(transport: Transport, url: str, most: int = 100, **more: str) -> bytes:
    with transport.request("GET", url, {}, **more) as answer:  # type: ignore[arg-type]
        return answer.read(most)


def test_a_connection_is_kept(transport: Transport) -> None:
    accepted = []

    def serve(connection: socket.socket) -> None:
        accepted.append(1)
        while connection.recv(1 << 16):
            connection.sendall(OK)

    with raw_server(serve) as host:
        for _ in range(3):
            assert get(transport, f"http://{host}/") == b"ok"
    assert len(accepted) == 1


def test_a_kept_connection_that_the_server_closed_is_replaced(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(OK)

    with raw_server(serve) as host:
        for _ in range(5):
            assert get(transport, f"http://{host}/") == b"ok"
            time.sleep(0.01)


def test_what_may_pass_is_tried_again(transport: Transport) -> None:
    left = [503, 502, 200, 500, 429, 504]

    def rule(exchange: Exchange) -> bool:
        exchange.answer(left.pop(0), {"Retry-After": "0"}, b"x")
        return True

    with faulty(rule=rule) as server:
        assert get(transport, f"http://{server.host}/") == b"x"
        assert left == [500, 429, 504]
        with transport.request("GET", f"http://{server.host}/", {}) as answer:
            assert answer.status == 504
        assert left == []


def test_pauses_grow_and_end() -> None:
    assert [pause_s(number, "", 1.0, lambda: 0.5) for number in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 20.0]
    assert pause_s(1, "7", 1.0) == 7.0
    assert pause_s(1, "9" * 5000, 1.0) == 20.0
    assert pause_s(1, "Wed, 21 Oct 2015 07:28:00 GMT", 1.0, lambda: 0.5) == 1.0


def dripping(number: int) -> bytes:
    time.sleep(0.05)
    return b"a"


ENDLESS: dict[str, Callable[[int], bytes]] = {
    "a head without an end": lambda number: b"X-%d: %s\r\n" % (number, b"a" * 100),
    "a line without an end": lambda number: b"a" * 1000,
    "continues without an end": lambda number: b"HTTP/1.1 100 Continue\r\n\r\n",
    "a byte at a time": dripping,
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_head_must_come_soon_and_be_short(transport: Transport, kind: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        if "continues" not in kind:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(10**9):
            connection.sendall(ENDLESS[kind](number))

    began = time.monotonic()
    with raw_server(serve) as host, pytest.raises(CutError, match="GET http://"):
        transport.request("GET", f"http://{host}/x?secret", {}, attempts=1)
    assert time.monotonic() - began < 10


def test_a_body_must_keep_a_rate_but_a_slow_reader_may_take_its_time(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        path = connection.recv(1 << 16).split()[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"a" * 100)
            time.sleep(0.2 if path == b"/slow" else 0.01)

    with raw_server(serve) as host:
        with transport.request("GET", f"http://{host}/", {}) as answer:
            assert answer.read1(10)
            time.sleep(0.7)
            assert len(answer.read(9999)) == 4990
        with (
            transport.request("GET", f"http://{host}/slow", {}) as answer,
            pytest.raises(CutError, match=r"less than 1000 bytes in 0\.5 s"),
        ):
            answer.read(9999)


def test_bodies_are_bounded(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"a" * 10_000)

    with raw_server(serve) as host, pytest.raises(RegistryError, match="longer than 100 bytes"):
        get(transport, f"http://{host}/")


def test_chunks_and_trailers_are_bounded_too(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        path = connection.recv(1 << 16).split()[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        if path == b"/size":
            connection.sendall(b"F" * 100_000)
        if path == b"/cut":
            return
        connection.sendall(b"0\r\n\r\n")

    with raw_server(serve) as host:
        assert get(transport, f"http://{host}/") == b"ok"
        for path in ("size", "cut"):
            with pytest.raises(CutError):
                get(transport, f"http://{host}/{path}")


def test_redirects_are_followed_and_limited_and_take_no_credentials_elsewhere(transport: Transport) -> None:
    with faulty() as other, faulty() as first:

        def rule(exchange: Exchange) -> bool:
            where = {
                "/far": f"http://{other.host}/there",
                "/near": "/there",
                "/round": "/round",
                "/file": "file:///etc",
            }
            if exchange.path in where:
                exchange.answer(307, {"Location": where[exchange.path]}, b"moved")
            else:
                exchange.answer(200, {}, b"ok")
            return True

        first.rule = other.rule = rule
        for path in ("near", "far"):
            assert get(transport, f"http://{first.host}/{path}", authorization="Basic x") == b"ok"
        assert [headers.get("Authorization") for _, _, headers in first.requests] == ["Basic x"] * 3
        assert [headers.get("Authorization") for _, _, headers in other.requests] == [None]
        with pytest.raises(RegistryError, match="more than 5 redirects"):
            get(transport, f"http://{first.host}/round")
        with pytest.raises(RegistryError, match="not an address of HTTP"):
            get(transport, f"http://{first.host}/file")


def test_closing_ends_what_waits() -> None:
    transport = Transport(Limits())
    asked = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        asked.set()
        connection.recv(1)

    failures: list[Exception] = []

    def ask(host: str) -> None:
        try:
            transport.request("GET", f"http://{host}/", {})
        except CutError as error:
            failures.append(error)

    with raw_server(serve) as host:
        thread = threading.Thread(target=ask, args=(host,))
        thread.start()
        assert asked.wait(20)
        transport.close()
        thread.join(20)
    assert len(failures) == 1


def test_nobody_there_is_said_with_what_to_do(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(CutError, match="Connection refused") as caught:
        transport.request("GET", f"http://127.0.0.1:{port}/", {})
    assert "does it run?" in caught.value.hint


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for localhost, which nobody trusts."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "-", "-out", "-", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


def encrypted(certificate: Path, received: list[bytes]) -> object:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            received.append(inner.recv(1 << 16))
            inner.sendall(OK if b"/ " in received[-1] else b"HTTP/1.1 302 Found\r\nLocation: http://a.example/\r\n\r\n")

    return serve


def test_certificates_are_checked(
    transport: Transport, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    received: list[bytes] = []
    with raw_server(encrypted(certificate, received)) as host:  # type: ignore[arg-type]
        url = f"https://localhost:{host.rpartition(':')[2]}/"
        with pytest.raises(RegistryError, match="its certificate is not trusted") as caught:
            transport.request("GET", url, {})
        assert "certs.d/localhost" in caught.value.hint and received == []
        place = tmp_path / url.split("/")[2]
        place.mkdir()
        monkeypatch.setattr("runtime.registry.transport.CERTIFICATES", (str(tmp_path),))
        (place / "broken.crt").write_text("nothing")
        (place / "ca.crt").write_bytes(certificate.read_bytes())
        with Transport(QUICK) as trusting:
            assert get(trusting, url) == b"ok"
        monkeypatch.undo()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Transport(QUICK) as trusting:
            assert get(trusting, url) == b"ok"
            with pytest.raises(RegistryError, match="which is not encrypted"):
                get(trusting, f"{url}x")
            with pytest.raises(RegistryError, match="not valid for"):
                get(trusting, f"https://{host}/")


def test_plain_http_where_https_was_expected_is_said(transport: Transport) -> None:
    with faulty() as server, pytest.raises(RegistryError) as caught:
        transport.request("GET", f"https://{server.host}/", {})
    assert "--plain-http" in caught.value.hint


def test_a_proxy_is_asked(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    with raw_server(encrypted(certificate, received)) as behind:  # type: ignore[arg-type]
        asked: list[bytes] = []

        def proxy(connection: socket.socket) -> None:
            asked.append(connection.recv(1 << 16))
            if not asked[-1].startswith(b"CONNECT"):
                connection.sendall(OK)
                return
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            with socket.create_connection(("127.0.0.1", int(behind.rpartition(":")[2]))) as other:
                pump = threading.Thread(target=_pump, args=(other, connection), daemon=True)
                pump.start()
                _pump(connection, other)

        with raw_server(proxy) as host:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"http://u:p@{host}")
            monkeypatch.delenv("no_proxy", raising=False)
            with Transport(QUICK) as transport:
                assert get(transport, "http://a.example/x?y") == b"ok"
                with pytest.raises(RegistryError, match=r"a\.example"):  # the certificate is localhost's
                    get(transport, "https://a.example/")
        assert asked[0].startswith(b"GET http://a.example/x?y HTTP/1.1\r\n")
        assert asked[1].startswith(b"CONNECT a.example:443 HTTP/1.")
        assert all(b"Proxy-Authorization: Basic dTpw" in one for one in asked)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
