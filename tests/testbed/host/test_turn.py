"""Two runs on one host: the second is refused, or waits, and hears whose turn it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.host.turn import find_turn, take_turn

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from testbed.host.turn import find_turn, take_turn
with take_turn(sys.argv[1], wait=False, progress=print, lock=Path(sys.argv[2])):
    print("in", flush=True)
    time.sleep(60)
"""


def holder(lock: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, "first", str(lock)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"in\n"
    return process


def test_a_second_run_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = holder(lock)
    with (
        pytest.raises(UsageError, match=rf"first \(process {first.pid}\)(?s:.*)--wait") as refused,
        take_turn("second", wait=False, progress=print, lock=lock),
    ):
        raise AssertionError("entered")
    assert "measured on this host" in str(refused.value)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with take_turn("second", wait=False, progress=print, lock=lock):
        pass
    assert not lock.exists()


def test_a_second_run_waits_and_says_for_whom(tmp_path: Path) -> None:
    lock, lines = tmp_path / "lock", list[str]()
    first = holder(lock)
    threading.Timer(0.3, first.terminate).start()
    began_s = time.monotonic()
    with take_turn("second", wait=True, progress=lines.append, lock=lock):
        assert time.monotonic() - began_s >= 0.2
        assert "second" in lock.read_text()
    first.wait()
    assert lines == [f"waiting for the end of the run first (process {first.pid})"]


def test_many_that_wait_have_one_turn_at_a_time(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0

    def go(name: str) -> None:
        nonlocal inside, most, entered
        for _ in range(50):
            with take_turn(name, wait=True, progress=lambda line: None, lock=tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                entered += 1
                inside -= 1

    threads = [threading.Thread(target=go, args=(f"run-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, entered) == (1, 200)
    assert not (tmp_path / "lock").exists()


def test_the_file_of_another_run_stays(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with take_turn("first", wait=False, progress=print, lock=lock):
        lock.unlink()  # somebody has cleaned, and another run begun
        with take_turn("second", wait=False, progress=print, lock=lock):
            pass
        assert not lock.exists()
        lock.write_text("third")
    assert lock.read_text() == "third"


def test_a_run_that_shares_the_host_neither_waits_nor_is_waited_for(tmp_path: Path) -> None:
    lock, lines = tmp_path / "lock", list[str]()
    with take_turn("third", wait=False, progress=lines.append, share=True, lock=lock):
        assert not lock.exists()
    with (
        take_turn("first", wait=False, progress=print, lock=lock),
        take_turn("second", wait=False, progress=lines.append, share=True, lock=lock),
    ):
        assert lock.read_text().startswith("first")
    assert len(lines) == 2 and "shares the host" in lines[0]
    with pytest.raises(UsageError, match="--share with --wait"), take_turn("a", wait=True, progress=print, share=True):
        raise AssertionError("entered")


def test_who_has_the_turn_can_be_asked_without_taking_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert find_turn(lock) == "" and not lock.exists()
    with take_turn("a run", wait=False, progress=print, lock=lock):
        assert find_turn(lock).startswith("a run (process ")
    assert find_turn(lock) == ""
