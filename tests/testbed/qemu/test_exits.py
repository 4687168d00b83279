"""The answer of a QEMU about exits of its guest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from runtime.errors import TestbedError
from testbed.qemu import exits
from testbed.qemu.emulator import find_qemu
from testbed.qemu.exits import parse_exits, read_exits
from tests.waiting import until


def _processor(**statistics: object) -> dict[str, object]:
    stats = [{"name": name, "value": value} for name, value in statistics.items()]
    return {"provider": "kvm", "qom-path": "/machine/unattached/device[0]", "stats": stats}


def test_exits_are_summed_over_processors() -> None:
    histogram = [1, 2, 3]  # statistics may be lists, too
    answer = [_processor(exits=10, halt_exits=4, halt_wait_hist=histogram), _processor(exits=5, halt_exits=5)]
    assert parse_exits(answer) == {"exits": 15, "halt": 9, "other": 6}


@pytest.mark.parametrize("answer", [[], [_processor(halt_exits=1)], [_processor(exits=1), _processor(io_exits=1)]])
def test_without_all_processors_totals_there_is_no_count(answer: list[Any]) -> None:
    assert parse_exits(answer) is None


def test_a_qemu_that_does_not_know_the_question_has_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TestbedError("ask QEMU of x to query-stats: The command query-stats has not been found")

    monkeypatch.setattr(exits, "ask", refuse)
    assert read_exits(None) is None


@pytest.mark.vm
@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened")
def test_a_real_qemu_counts_exits_of_its_guest() -> None:
    machine = ["-accel", "kvm", "-cpu", "qemu64", "-m", "64", "-nodefaults", "-display", "none"]
    command = ["setpriv", "--pdeathsig", "KILL", str(find_qemu()), *machine, "-S", "-qmp", "stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as qemu:
        try:
            assert qemu.stdin is not None and qemu.stdout is not None
            qemu.stdout.readline()  # its greeting

            def answer(name: str, **arguments: object) -> Any:
                assert qemu.stdin is not None and qemu.stdout is not None
                qemu.stdin.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
                qemu.stdin.flush()
                while "return" not in (line := json.loads(qemu.stdout.readline())):
                    assert "error" not in line, line
                return line["return"]

            answer("qmp_capabilities")
            answer("cont")

            def count() -> Mapping[str, int] | None:
                found = parse_exits(answer("query-stats", **exits.QUESTION))
                return found if found and found["exits"] else None

            counted = until(count)
        finally:
            qemu.kill()
    assert counted is not None
    assert counted["exits"] == sum(number for reason, number in counted.items() if reason != "exits")
