"""The generator in C: its reader under a fuzzer, and what its process says of loads that are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed.load import build
from testbed.load.messages import Stream, decode_report, describe_failure, encode_loads
from testbed.load.requests import Request
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
    binary = tmp_path_factory.mktemp("fuzzer") / "fuzz"
    flags = ["-g", "-O1", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    used = [str(Path(__file__).with_name("fuzz_http1.c")), str(build.FOLDER / "http1.c")]
    try:
        built = subprocess.run(
            ["clang", *flags, f"-I{build.FOLDER}", "-o", str(binary), *used], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("clang is not installed, and libFuzzer comes with it")
    if built.returncode != 0 and "cannot find" in built.stderr:
        pytest.skip("clang has no libFuzzer here: install its libclang-rt package")
    assert built.returncode == 0, built.stderr
    return binary


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
    done = subprocess.run([build.build()], input=said, capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (1, b"")
    assert complaint in done.stderr.decode()


def test_a_report_that_is_cut_short_is_none() -> None:
    loads = b"".join(encode_loads([STREAM]))
    done = subprocess.run([build.build()], input=loads, capture_output=True, timeout=10)
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


def test_the_generator_is_compiled_when_a_source_is_newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "testbed-load"
    monkeypatch.setattr(build, "BINARY", binary)
    assert not build.is_current()
    assert build.build() == binary and build.is_current()
    made_ns = binary.stat().st_mtime_ns
    build.build()
    assert binary.stat().st_mtime_ns == made_ns
    described = subprocess.run(["file", "-b", binary], capture_output=True, text=True, check=False).stdout
    assert not described or "static" in described
