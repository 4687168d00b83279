"""The generator in C: its reader under a fuzzer, and what its process says of loads that are none."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.load.build import FOLDER, GENERATOR
from testbed.load.messages import Stream, decode_report, describe_failure, encode_loads
from testbed.load.open_loop import offer
from testbed.load.requests import Request
from tests.fuzzing import compile_fuzzer
from tests.testbed.load.test_http1 import CASES

EXECUTIONS = 300_000
DICTIONARY = (
    "HTTP/1.1 ",
    "Content-Length: ",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "\\x0d\\x0a",
    "\\x0d\\x0a\\x0d\\x0a",
)
STREAM = Stream("127.0.0.1", 1, 10**9, 0, 10**9, 1, (Request(),), [0, 10, 20], bytes(3))


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    used = [str(Path(__file__).with_name("fuzz_http1.c")), str(FOLDER / "http1.c")]
    return compile_fuzzer(tmp_path_factory.mktemp("fuzzer") / "fuzz", used, [f"-I{FOLDER}"])


def test_no_answer_makes_the_reader_leave_its_bytes_or_depends_on_how_it_is_cut(fuzzer: Path, tmp_path: Path) -> None:
    corpus, words = tmp_path / "corpus", tmp_path / "words"
    corpus.mkdir()
    words.write_text("".join(f'"{word}"\n' for word in DICTIONARY))
    for number, case in enumerate(CASES):
        (corpus / str(number)).write_bytes(bytes([number]) + case)
    command = [str(fuzzer), f"-dict={words}", f"-runs={EXECUTIONS}", "-seed=1", "-max_len=1024", "-print_final_stats=1"]
    done = subprocess.run([*command, str(corpus)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"stat::number_of_executed_units: {EXECUTIONS}" in done.stderr


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "no loads"),
        (b"nonsense", "no loads"),
        (b"".join(encode_loads([STREAM]))[:-1], "cut short"),
        (b"".join(encode_loads([STREAM])) + b"x", "more follows"),
        (b"".join(encode_loads([STREAM]))[:20], "load"),
        (b"".join(encode_loads([Stream("::1", 1, 1, 0, 1, 1, (Request(),), [20, 10], bytes(2))])), "not in order"),
        (b"".join(encode_loads([Stream("::1", 1, 1, 0, 1, 1, (Request(),), [10, 20], b"\0\1")])), "not in order"),
        (b"".join(encode_loads([Stream("::1", 1, 1, 0, 1, 1, (), [], b"")])), "no kind of request"),
    ],
)
def test_loads_that_are_none_are_refused(said: bytes, complaint: str) -> None:
    done = subprocess.run([GENERATOR.build()], input=said, capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (1, b"")
    assert complaint in done.stderr.decode()


def test_a_report_that_is_cut_short_is_none() -> None:
    loads = b"".join(encode_loads([STREAM]))
    done = subprocess.run([GENERATOR.build()], input=loads, capture_output=True, timeout=10)
    line, _, report = done.stdout.partition(b"\n")
    whole = decode_report(report, [STREAM])
    assert whole.began_ns == int(line)
    assert whole.streams[0].failures == {"connect: ECONNREFUSED": 3}
    assert len(whole.lags_usec) == 3
    for end in range(0, len(report), 7):
        with pytest.raises(ValueError):
            decode_report(report[:end], [STREAM])
    with pytest.raises(ValueError, match="these loads"):
        decode_report(report, [STREAM, STREAM])


def test_failures_are_named_as_the_kernel_and_http_name_them() -> None:
    assert describe_failure(2, 111, None) == "connect: ECONNREFUSED"
    assert describe_failure(5, 503, Request("POST", "/click")) == "status 503 (POST /click)"
    assert describe_failure(6, 0, None) == "timeout"
    assert describe_failure(1, 9999, None) == "socket: 9999"


def test_the_generator_is_compiled_when_a_source_is_newer(tmp_path: Path) -> None:
    binary = tmp_path / "testbed-load"
    program = replace(GENERATOR, binary=binary)
    assert not program.is_current()
    assert program.build() == binary and program.is_current()
    made_ns = binary.stat().st_mtime_ns
    program.build()
    assert binary.stat().st_mtime_ns == made_ns
    described = subprocess.run(["file", "-b", binary], capture_output=True, text=True, check=False).stdout
    assert not described or "static" in described


def test_connections_that_cannot_be_had_are_failures() -> None:
    """Standard streams and epoll take four descriptors of eight."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        arrivals = [number * 1_000_000 for number in range(100)]
        port = mute.getsockname()[1]
        stream = Stream("127.0.0.1", port, 200_000_000, 0, 100_000_000, 50, (Request(),), arrivals, bytes(100))
        done = subprocess.run(
            [GENERATOR.build()],
            input=b"".join(encode_loads([stream])),
            capture_output=True,
            timeout=10,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)),
        )
    (report,) = decode_report(done.stdout.partition(b"\n")[2], [stream]).streams
    assert set(report.failures) == {"socket: EMFILE", "timeout"}
    assert report.failures["timeout"] == report.opened <= 4


@pytest.mark.root
def test_it_has_no_rights_while_it_reads_what_servers_send() -> None:
    with subprocess.Popen([GENERATOR.build()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 5
            while "CapEff:\t0000000000000000" not in (status := Path(f"/proc/{process.pid}/status").read_text()):
                assert time.monotonic() < until, status
                time.sleep(0.005)
        finally:
            process.kill()
    assert "Uid:\t65534\t65534\t65534\t65534" in status and "Gid:\t65534\t65534" in status
    assert "Groups:\t \n" in status and "NoNewPrivs:\t1" in status


def test_it_ends_with_the_process_that_started_it() -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE)\n"
        "time.sleep(0.3); print(child.pid, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(GENERATOR.build())], capture_output=True, text=True, timeout=10
    )
    pid = int(done.stdout)
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_an_answer_that_comes_before_the_request_is_out_ends_the_connection() -> None:
    """What follows the part of a body that was sent would be taken for the rest of it."""
    request = Request("POST", "/", body="x" * 16_000_000)  # more than the kernel takes in at once
    received: list[bytes] = []
    serving: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        data = connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.1)
        with suppress(OSError), connection:
            while piece := connection.recv(1 << 20):
                data += piece
        received.append(data)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                serving.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                serving[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        arrivals = [number * 100_000_000 for number in range(5)]
        stream = Stream("127.0.0.1", port, 2 * 10**9, 0, 10**9, 1, (request,), arrivals, bytes(5))
        (report,) = offer([stream]).streams
        listener.shutdown(socket.SHUT_RDWR)
        for one in (thread, *serving):
            one.join()
    size = len(request.compose("127.0.0.1", port))
    assert (len(report.ok_usec), report.opened) == (5, 5)
    assert any(len(data) < size for data in received), "some were answered before they were out"
    for data in received:
        begins = [found.start() for found in re.finditer(b"POST / HTTP/1.1", data)]
        assert begins == [size * number for number in range(len(begins))]
