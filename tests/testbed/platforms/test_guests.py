"""How a guest is, by what its console shows: a domain of libvirt's test driver, and lines as a guest writes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import WorkloadError
from runtime.output import BoundedLog
from runtime.spec import Process, Spec
from testbed.platforms.guests import Domains
from testbed.platforms.protocol import Instance
from testbed.qemu.console import Console
from tests.testbed.qemu.test_schema import driver
from tests.testbed.xen.test_meter import XML

assert driver  # a fixture


class _Guest(Struct, frozen=True):
    domain: Any
    console: Console
    requested_ns: int = 1
    created_ns: int = 2


class _Guests(Domains[_Guest]):
    uri = "test:///default"

    def __init__(self, guest: _Guest, name: str) -> None:
        super().__init__()
        self._running[name] = guest


def make_instance(folder: Path) -> Instance:
    return Instance("a0", 0, {"web": Spec(Process(args=("true",)), (), "web")}, folder / "log")


@pytest.fixture
def guest(driver: Any, tmp_path: Path) -> Iterator[_Guest]:
    domain = driver.createXML(XML, 0)
    yield _Guest(domain, Console(BoundedLog(tmp_path / "log")))
    domain.destroy()


def test_its_start_its_end_and_its_status_are_told(guest: _Guest, tmp_path: Path) -> None:
    one, guests = make_instance(tmp_path), _Guests(guest, "a0")
    guest.console.feed(b"Linux version 6.1.0\ntestbed: first userspace\n", 5)
    with pytest.raises(WorkloadError, match=r"virtual machine a0: its start took longer than 0.01 s before its first"):
        guests.started(one, 0.01)
    threading.Timer(0.05, guest.console.feed, (b"testbed: exec\n", 9)).start()
    phases = guests.started(one, 20).phases
    assert phases == {"request": 1, "created": 2, "kernel_entry": 5, "first_userspace": 5, "first_process": 9}
    assert guests.alive(one) and guests.exit_status(one, 0) is None and guests.ending(one) == ""
    guest.console.feed(b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700\n", 10)
    guest.console.feed(b"", 11)
    assert not guests.alive(one) and guests.exit_status(one, 0) == 7 and guests.ending(one) == "exit status 7"
    other = replace(one, name="another")
    assert not guests.alive(other) and guests.ending(other) == ""


def test_one_that_ends_before_its_workload_says_why(guest: _Guest, tmp_path: Path) -> None:
    one, guests = make_instance(tmp_path), _Guests(guest, "a0")
    guest.console.feed(b"testbed: step 3: mount /lower: ENODEV\n", 5)
    guest.console.feed(b"", 6)
    with pytest.raises(WorkloadError, match=r"a0: testbed: step 3: mount /lower: ENODEV") as raised:
        guests.started(one, 20)
    assert str(one.log) in raised.value.hint and "ENODEV" in raised.value.hint


def test_a_guest_whose_log_was_lost_is_not_said_to_run(guest: _Guest, tmp_path: Path) -> None:
    full = replace(guest, console=Console(BoundedLog(Path("/dev/full"))))
    full.console.feed(os.urandom(64) + b"\n", 5)
    with pytest.raises(WorkloadError, match="write the log /dev/full: No space left"):
        _Guests(full, "a0").alive(make_instance(tmp_path))
