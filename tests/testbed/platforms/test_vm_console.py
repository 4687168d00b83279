"""Consoles: phases by the host's clock, logs, ends; over the real sockets that QEMU uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from testbed.platforms.console import Console, exit_status_of, phase_of
from testbed.platforms.reader import ConsoleReader, adopting


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console((tmp_path / "log").open("w"))


@pytest.fixture
def reader() -> Iterator[ConsoleReader]:
    reader = ConsoleReader()
    yield reader
    reader.close()


def test_lines_tell_phases() -> None:
    assert phase_of("Booting from ROM..[    0.000000] Linux version 6.1.0 (gcc)") == "kernel_entry"
    assert phase_of("testbed: first userspace") == "first_userspace"
    assert phase_of("testbed: exec") == "first_process"
    assert phase_of("Puma starting") is None


@pytest.mark.parametrize(("code", "status"), [("00000000", 0), ("00000700", 7), ("00000009", 137), ("0000000b", 139)])
def test_the_panic_line_tells_the_exit_status(code: str, status: int) -> None:
    line = f"[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x{code}"
    assert exit_status_of(line) == status


def test_a_line_counts_when_its_end_arrives(console: Console, tmp_path: Path) -> None:
    console.feed(b"[0.0] Linux ver", 1_000_000_000)
    assert console.phases() == {}
    console.feed(b"sion 6.1\r\ntestbed: first userspace\n", 2_500_000_000)
    assert console.phases() == {"kernel_entry": 2_500_000_000, "first_userspace": 2_500_000_000}
    assert (tmp_path / "log").read_text().splitlines()[0] == "[2.500000] [0.0] Linux version 6.1"


def test_the_first_of_equal_lines_is_the_phase(console: Console) -> None:
    console.feed(b"testbed: exec\n", 5)
    console.feed(b"the workload prints testbed: exec too\n", 9)
    assert console.phases()["first_process"] == 5


def test_containers_in_a_guest_have_phases_of_their_own(console: Console) -> None:
    console.feed(b"testbed: redis: created\ntestbed: redis: exec\n", 5)
    assert not console.wait_for_services(("redis", "web"), 0)
    console.feed(b"redis: testbed: web: exec\n", 6)  # what a container writes says nothing of another
    assert not console.wait_for_services(("redis", "web"), 0)
    console.feed(b"testbed: web: created\n", 7)
    console.feed(b"testbed: web: exec\n", 8)
    assert console.wait_for_services(("redis", "web"), 0)
    assert console.services()["redis"] == {"container_created": 5, "first_process": 5}
    assert console.services()["web"] == {"container_created": 7, "first_process": 8}
    console.feed(b"testbed: web: ended: 3\n", 9)
    assert console.failure == "web: ended: 3"


def test_an_unfinished_last_line_is_not_lost(console: Console) -> None:
    console.feed(b"no newline", 1)
    console.feed(b"", 2)
    assert console.ended
    assert console.tail() == "no newline"


def test_a_panic_does_not_push_out_what_led_to_it(console: Console) -> None:
    panic = b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n" + b"RAX: 0\n" * 100
    console.feed(b"cannot open database\n" + panic, 1)
    assert console.tail() == "cannot open database"
    assert console.exit_status == 1


def test_a_failed_step_is_remembered(console: Console) -> None:
    console.feed(b"testbed: step 32: mkdir /merged: File exists\n", 1)
    assert console.failure == "testbed: step 32: mkdir /merged: File exists"


def test_a_console_is_stamped_between_sending_and_seeing(reader: ConsoleReader, tmp_path: Path) -> None:
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(str(tmp_path / "socket"))
        before_ns = time.monotonic_ns()
        guest.sendall(b"testbed: exec\n")
        assert console.wait_for("first_process", 5.0)
        assert before_ns < console.phases()["first_process"] < time.monotonic_ns()
        assert not console.ended
    assert console.wait_for_end(5.0)
    assert os.listdir(tmp_path) == ["log"]


def test_waiting_ends_with_the_console_or_the_time(reader: ConsoleReader, tmp_path: Path) -> None:
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    began_s = time.monotonic()
    assert not console.wait_for("first_process", 0.05)
    assert time.monotonic() - began_s < 2
    reader.abandon(tmp_path / "socket")
    assert not console.wait_for("first_process", 60)
    assert console.ended


def test_closing_the_reader_ends_what_is_open(tmp_path: Path) -> None:
    reader = ConsoleReader()
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    unused = reader.listen(tmp_path / "unused", tmp_path / "unused.log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(str(tmp_path / "socket"))
        guest.sendall(b"hello\n")
        while not console.tail():
            time.sleep(0.001)
        before = len(os.listdir("/proc/self/fd"))
        reader.close()
    assert console.ended
    assert not unused.ended
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_path_that_cannot_be_listened_at_is_named(reader: ConsoleReader, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="listen for a console at /nowhere/socket"):
        reader.listen(Path("/nowhere/socket"), tmp_path / "log")


def test_a_daemon_that_connects_is_reaped_at_its_end(reader: ConsoleReader, tmp_path: Path) -> None:
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    child = "import os,socket; s=socket.socket(socket.AF_UNIX); s.connect('socket'); s.send(b'%d\\n' % os.getpid())"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    with adopting():
        subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=True)
    assert console.wait_for_end(10.0)
    pid = int(console.tail())
    deadline_s = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert not Path(f"/proc/{pid}").exists()
