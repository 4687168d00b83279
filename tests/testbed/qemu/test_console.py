"""Consoles: phases by the host's clock, logs, ends; over the real sockets that QEMU uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from runtime.launcher import STATIC_BINARY
from runtime.output import BoundedLog
from runtime.plan.encode import encode
from runtime.plan.steps import Exec, Plan, RequestAdmission
from testbed.qemu.console import Console, parse_exit_status, parse_phase
from testbed.qemu.reader import ConsoleReader, adopt_orphans
from tests.waiting import until
from vm_images.plans.guest import MEMORY_END


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(BoundedLog(tmp_path / "log"))


@pytest.fixture
def reader() -> Iterator[ConsoleReader]:
    reader = ConsoleReader()
    yield reader
    reader.close()


def test_a_stock_system_tells_its_own_phases() -> None:
    told = {
        "\x1bc\x1b[?7lSeaBIOS (version 1.16.2-debian-1.16.2-1)": "firmware",
        "GRUB loading...": "boot_loader",
        "[    9.513346] systemd[1]: Inserted module 'autofs4'": "init",
        "[   48.3] cloud-init[308]: Cloud-init v. 22.4.2 running 'init-local' at Tue, 24 Nov": "cloud_local",
        "redis login: [   94.0] cloud-init[445]: Cloud-init v. 22.4.2 running 'modules:final' at Tue": "cloud_final",
    }
    assert {line: parse_phase(line) for line in told} == told


def test_the_status_of_a_unit_is_what_it_says_last() -> None:
    assert parse_exit_status("redis login: testbed: exit status 7") == 7


def test_lines_tell_phases() -> None:
    assert parse_phase("Booting from ROM..[    0.000000] Linux version 6.1.0 (gcc)") == "kernel_entry"
    assert parse_phase("testbed: first userspace") == "first_userspace"
    assert parse_phase("testbed: exec") == "first_process"
    assert parse_phase("Puma starting") is None


@pytest.mark.parametrize(("code", "status"), [("00000000", 0), ("00000700", 7), ("00000009", 137), ("0000000b", 139)])
def test_the_panic_line_tells_the_exit_status(code: str, status: int) -> None:
    line = f"[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x{code}"
    assert parse_exit_status(line) == status


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


def test_what_the_host_sees_by_itself_is_a_phase_too(console: Console) -> None:
    before_ns = time.monotonic_ns()
    console.stamp("spawned")
    first = console.phases()["spawned"]
    console.stamp("spawned")
    assert before_ns <= first == console.phases()["spawned"] <= time.monotonic_ns()
    assert console.wait_for("spawned", 0)


def test_a_step_that_fails_ends_the_wait(console: Console) -> None:
    """The guest may live on: one that was restored does, and its launcher waits for another plan."""
    console.feed(b"testbed: step 3: sethostname x: EINVAL (22)\n", 5)
    assert not console.wait_for("identity", 60)
    assert "sethostname" in console.failure and not console.ended


def test_what_is_sent_arrives_at_the_other_end(reader: ConsoleReader, tmp_path: Path) -> None:
    path = tmp_path / "console"
    console = reader.listen(path, tmp_path / "log")
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(path))
        assert console.wait_for("spawned", 5)
        console.send_plan(b"a plan")
        assert guest.recv(64) == b"a plan"
    assert console.wait_for_end(5)
    console.send_plan(b"nobody there")


def test_containers_in_a_guest_have_phases_of_their_own(console: Console) -> None:
    console.feed(b"testbed: redis: created\ntestbed: redis: exec\n", 5)
    console.feed(b"redis: testbed: web: exec\n", 6)  # what a container writes says nothing of another
    assert not console.wait_for("web.first_process", 0)
    console.feed(b"testbed: web: created\n", 7)
    console.feed(b"testbed: web: exec\n", 8)
    assert console.phases() == {
        "redis.container_created": 5,
        "redis.first_process": 5,
        "web.container_created": 7,
        "web.first_process": 8,
    }
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


def test_it_is_said_why_a_first_process_was_not_seen(console: Console) -> None:
    assert console.explain_delay(2.5) == "its start took longer than 2.5 s before its first process"
    console.feed(b"", 1)
    assert console.explain_delay(2.5) == "its start ended before its first process"
    console.feed(b"testbed: step 32: mkdir /merged: File exists\n", 2)
    assert console.explain_delay(2.5) == "testbed: step 32: mkdir /merged: File exists"


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


def test_what_a_guest_tells_of_its_memory_is_in_no_log(reader: ConsoleReader, tmp_path: Path) -> None:
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    assert console.ask_memory(0.01) is None, "nobody is there to be asked"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(str(tmp_path / "socket"))
        guest.sendall(b"Before: 1 kB\n")
        until(console.tail)
        assert console.ask_memory(0.05) is None, "it does not answer"

        def answer() -> None:
            assert guest.recv(1) == guest.recv(1) == b"\n", "also of the question that had no answer"
            guest.sendall(b"\r\nMemTotal:       94788 kB\r\nan aside\r\nHugePages_Total:       0\r\n")
            guest.sendall(MEMORY_END.encode() + b"\r\nAfter: 2 kB\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        assert console.ask_memory(10) == "MemTotal:       94788 kB\nHugePages_Total:       0"
        answering.join()
    assert console.wait_for_end(5.0)
    assert console.tail().splitlines() == ["Before: 1 kB", "an aside", "After: 2 kB"]


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
        until(console.tail)
        before = len(os.listdir("/proc/self/fd"))
        reader.close()
    assert console.ended
    assert not unused.ended
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_path_that_cannot_be_listened_at_is_named(reader: ConsoleReader, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="listen for QEMU at /nowhere/socket"):
        reader.listen(Path("/nowhere/socket"), tmp_path / "log")


def test_a_daemon_that_connects_is_reaped_at_its_end(reader: ConsoleReader, tmp_path: Path) -> None:
    console = reader.listen(tmp_path / "socket", tmp_path / "log")
    child = "import os,socket; s=socket.socket(socket.AF_UNIX); s.connect('socket'); s.send(b'%d\\n' % os.getpid())"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    with adopt_orphans():
        subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=True)
    assert console.wait_for_end(10.0)
    pid = int(console.tail())
    until(lambda: not Path(f"/proc/{pid}").exists(), 5)
    assert not Path(f"/proc/{pid}").exists()


def launcher(plan: Plan, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "plan").write_bytes(encode(plan))
    return subprocess.run([STATIC_BINARY, tmp_path / "plan"], capture_output=True, text=True, timeout=10)


def test_who_asks_is_admitted_before_it_goes_on(reader: ConsoleReader, tmp_path: Path) -> None:
    door, admitted = tmp_path / "door", []
    reader.admit(door, lambda pid: admitted.append(Path(f"/proc/{pid}/exe").resolve()))
    done = launcher(Plan((RequestAdmission(str(door)), Exec(("/bin/echo", "in")))), tmp_path)
    assert (done.stdout, done.returncode) == ("in\n", 0)
    assert admitted == [STATIC_BINARY.resolve()]
    assert not door.exists(), "it is for one"


def test_what_is_handed_over_becomes_standard_input(reader: ConsoleReader, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("handed over")
    with (tmp_path / "file").open("rb") as file:
        reader.admit(tmp_path / "door", lambda pid: None, file.fileno())
        done = launcher(Plan((RequestAdmission(str(tmp_path / "door")), Exec(("/bin/cat",)))), tmp_path)
    assert (done.stdout, done.returncode) == ("handed over", 0)


def test_who_is_refused_does_not_go_on(reader: ConsoleReader, tmp_path: Path) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(f"no cgroup for {pid}")

    reader.admit(tmp_path / "door", refuse)
    done = launcher(Plan((RequestAdmission(str(tmp_path / "door")), Exec(("/bin/echo", "in")))), tmp_path)
    assert done.stdout == ""
    assert "EACCES" in done.stderr and done.returncode != 0
    reader.admit(tmp_path / "next", lambda pid: None)
    assert launcher(Plan((RequestAdmission(str(tmp_path / "next")), Exec(("/bin/true",)))), tmp_path).returncode == 0


@pytest.mark.parametrize(
    "piece",
    [
        b"\0" * 65536,
        b"\n" * 65536,
        b"a line of a log, not a short one\n" * 2000,
        b"testbed: " * 7000,
        b"\x1b[2J" * 9999,
    ],
    ids=["no newline", "empty lines", "lines", "marks without end", "escapes"],
)
def test_a_flooded_console_is_bounded_and_still_tells(piece: bytes, console: Console, tmp_path: Path) -> None:
    console.feed(b"testbed: first userspace\ntestbed: exec\n", 1)
    tracemalloc.start()
    began_s = time.process_time()
    try:
        for _ in range(2000):
            console.feed(piece, 2)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    used_s = time.process_time() - began_s
    assert peak_bytes < 16 << 20
    assert used_s < 30, "slower than 4 MB/s"
    console.feed(b"\nKernel panic - not syncing: Attempted to kill init! exitcode=0x00000300\n", 3)
    console.feed(b"", 4)
    assert console.phases() == {"first_userspace": 1, "first_process": 1}
    assert console.ending() == "exit status 3"
    assert len(console.tail()) < 15 * 500 and "\x1b" not in console.tail()
    assert (tmp_path / "log").stat().st_size < (3 << 20) + 100


def test_phases_and_answers_that_a_guest_invents_are_bounded(console: Console) -> None:
    for number in range(5000):
        console.feed(f"testbed: service-{number}: exec\n".encode(), number)
    assert len(console.phases()) < 2000
    console.feed(b"testbed: web: failed: \x1b[31m" + b"x" * 3000 + b"\n", 1)
    assert len(console.failure) < 500 and "\x1b" not in console.failure

    def answer(_: bytes) -> None:
        console.feed(b"MemFree: 1 kB\n" * 100_000 + b"MemTotal: " + b"9" * 5000 + b" kB\n", 1)
        console.feed(f"{MEMORY_END}\n".encode(), 1)

    console.send = lambda data: threading.Thread(target=answer, args=(data,)).start()
    meminfo = console.ask_memory(20)
    assert meminfo is not None and len(meminfo) < 10_000 and "9999" not in meminfo


def test_a_mark_that_comes_in_two_pieces_behind_a_flood_without_lines_is_seen(console: Console) -> None:
    for _ in range(40):
        console.feed(b"x" * 65536, 1)
    console.feed(b"x" * 60000 + b"[ 9.1] Kernel pa", 2)
    console.feed(b"nic - not syncing: Attempted to kill init! exitcode=0x00000500\n", 3)
    assert console.panic.startswith("Kernel panic") and console.exit_status == 5


def test_a_terminal_is_read_until_its_other_end_hangs_up(reader: ConsoleReader, tmp_path: Path) -> None:
    """As a guest of Xen's has one, which a daemon of Xen's writes to."""
    ours, theirs = os.openpty()
    console = reader.attend(Path(os.ttyname(theirs)), tmp_path / "log")
    os.close(theirs)
    os.write(ours, b"testbed: first userspace\n")
    assert console.wait_for("first_userspace", 5) and not console.ended
    os.write(ours, b"testbed: exec\n")
    assert console.wait_for("first_process", 5)
    os.close(ours)
    assert console.wait_for_end(5)
    assert "testbed: exec" in (tmp_path / "log").read_text()


def test_a_guest_is_asked_for_its_memory_at_a_terminal_until_its_other_end_hangs_up(
    reader: ConsoleReader, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    console = reader.attend(Path(os.ttyname(theirs)), tmp_path / "log")
    os.close(theirs)

    def answer() -> None:
        assert os.read(ours, 8) == b"\n"
        os.write(ours, f"MemTotal: 7 kB\n{MEMORY_END}\n".encode())

    guest = threading.Thread(target=answer)
    guest.start()
    assert console.ask_memory(20) == "MemTotal: 7 kB"
    guest.join()
    os.close(ours)
    assert console.wait_for_end(5) and console.ask_memory(20) is None
    assert "MemTotal" not in (tmp_path / "log").read_text()


def test_a_console_that_is_not_there_is_an_error(reader: ConsoleReader, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"open the console .*nothing: No such file"):
        reader.attend(tmp_path / "nothing", tmp_path / "log")


KILLED = "Out of memory: Killed process 77 (ruby) total-vm:1kB, anon-rss:1kB"


def test_what_the_kernel_killed_for_want_of_memory_is_counted_and_told(console: Console) -> None:
    console.feed(f"[   12.345678] {KILLED}\n".encode(), 1)
    console.feed(f"[   12.9] Memory cgroup {KILLED.replace('Out', 'out').replace('ruby', 'a (b)')}\n".encode() * 2, 2)
    console.feed(f"web: [   13.0] {KILLED}\n{KILLED}\n".encode(), 3)  # no kernel's words
    assert console.killed == {"ruby": 1, "a (b)": 2}
    assert console.ending() == ""
    console.feed(b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00008900\n", 4)
    assert console.ending() == "exit status 137; its kernel had killed for want of memory: ruby, a (b) 2 times"


def test_names_of_what_was_killed_have_a_limit_and_do_no_harm(console: Console) -> None:
    for number in range(1000):
        console.feed(f"[ 1.5] {KILLED.replace('ruby', chr(27) + str(number))}\n".encode(), 1)
    assert len(console.killed) == 64
    counted = sum(console.killed.values())
    console.feed(f"[ 1.5] {KILLED.replace('ruby', chr(27) + '0')}\n".encode(), 1)
    assert sum(console.killed.values()) == counted + 1, "one that is counted already goes on being counted"
    assert chr(27) not in "".join(console.killed)


def test_a_kill_is_seen_in_a_flood(console: Console) -> None:
    console.feed(b"x\n" * 30_000, 1)
    console.feed(f"[ 1.5] {KILLED}\n".encode(), 2)
    assert console.killed == {"ruby": 1}


def test_a_tenant_that_ends_is_no_end_of_the_guest(console: Console) -> None:
    console.feed(b"testbed: @neighbour: left: 137\n", 1)
    console.feed(b"web: testbed: other: left: 1\n", 1)
    assert console.left == {"@neighbour": 137}
    assert (console.failure, console.exit_status) == ("", None)
    assert console.wait_for_left("web", 0) is None
    console.feed(b"testbed: web: ended: 5\n", 1)
    assert console.wait_for_left("web", 0) == 5, "the last one takes the guest with it"
