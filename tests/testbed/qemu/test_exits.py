"""The answer of a QEMU about exits of its guest."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import TestbedError
from testbed.qemu import exits
from testbed.qemu.exits import parse_exits, read_exits


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
