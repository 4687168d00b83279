"""Further commands in a running service, through pipes and in a terminal of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import UsageError, WorkloadError
from testbed.projects.execution import check_executable, execute
from testbed.projects.record import Member
from tests.testbed.projects.conftest import Start, Write

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[3]
CALL = """import sys
from testbed.projects.execution import execute
from testbed.projects.record import choose
sys.exit(execute(choose(sys.argv[1]), sys.argv[2], tuple(sys.argv[4:]), terminal=sys.argv[3] == "tty"))"""


def call(name: str, *words: str, tty: str = "no") -> list[str]:
    return [sys.executable, "-c", CALL, name, "web", tty, *words]


def test_a_command_has_our_streams_and_we_its_status(start: Start, write_scenario: Write, run_name: str) -> None:
    start(write_scenario())
    script = "busybox cat; echo $GREETING >&2; busybox hostname; exit 5"
    done = subprocess.run(
        call(run_name, "sh", "-c", script), cwd=ROOT, input="given\n", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "given\nweb\n", "hello\n")
    lots = subprocess.run(
        call(run_name, "busybox", "dd", "if=/dev/zero", "bs=1M", "count=8"), cwd=ROOT, capture_output=True, check=True
    )
    assert len(lots.stdout) == 8 << 20


def test_a_process_left_in_the_background_does_not_keep_us(start: Start, write_scenario: Write, run_name: str) -> None:
    start(write_scenario())
    words = ("sh", "-c", "busybox sleep 100 & echo gone")
    done = subprocess.run(call(run_name, *words), cwd=ROOT, stdout=subprocess.PIPE, timeout=20, check=True)
    assert done.stdout == b"gone\n"


def test_a_command_in_a_terminal(start: Start, write_scenario: Write, run_name: str) -> None:
    start(write_scenario())
    master, slave = os.openpty()
    try:
        with subprocess.Popen(
            call(run_name, "sh", "-c", "test -t 0 && test -t 1 && echo a terminal", tty="tty"),
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(slave)
            assert process.wait(20) == 0
            assert os.read(master, 100) == b"a terminal\r\n"
    finally:
        os.close(master)


def test_a_command_that_is_not_there(start: Start, write_scenario: Write) -> None:
    project = start(write_scenario())
    with pytest.raises(WorkloadError, match="exec in web: nowhere: No such file") as raised:
        execute(project, "web", ("nowhere",), terminal=False)
    assert raised.value.exit_code == 127
    with pytest.raises(UsageError, match="no service 'db'"):
        execute(project, "db", ("sh",), terminal=False)


def test_a_command_as_another_user_elsewhere(start: Start, write_scenario: Write, tmp_path: Path) -> None:
    project = start(write_scenario())
    with (tmp_path / "out").open("w+b") as out:
        before = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            words = ("sh", "-c", "busybox id -u; pwd")
            assert execute(project, "web", words, terminal=False, user="7:8", working_dir="www") == 0
        finally:
            os.dup2(before, 1)
            os.close(before)
        out.seek(0)
        assert out.read() == b"7\n/www\n"
    with pytest.raises(UsageError, match="user 'nobody' is not in the image"):
        execute(project, "web", ("sh",), terminal=False, user="nobody")


def test_where_no_command_can_be_executed() -> None:
    with pytest.raises(UsageError, match="runs in a stock system"):
        check_executable(Member("web", "web", "10.77.1.10", state="running"), "vm-cloud")
    check_executable(Member("web", "web", "10.77.1.10", state="running"), "vm-micro")
    with pytest.raises(UsageError, match="exec in web: it is exited"):
        check_executable(Member("web", "web", "10.77.1.10", state="exited"), "container")
