"""What ramps saw at each step, from the files of a run folder, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.analysis import Run, read_run
from testbed.measures.steps import Point
from testbed.ramps import select_parts, select_steps
from testbed.results import RunFolder, Trial

HEADER = Point.__struct_fields__


def row(applications: int, start_s: float, requests: int, verdict: str, slow: int = 0) -> list[float | str]:
    named: dict[str, float | str] = dict.fromkeys(HEADER, 0)
    named |= {"applications": applications, "start_s": start_s, "requests": requests, "slow": slow}
    named |= {"p50_ms": 2.0 * applications, "p99_ms": 9.0 * applications, "verdict": verdict}
    return list(named.values())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "small"})
    for trial, starts in ((0, (0.4, 0.6)), (1, (0.5, 0.8))):
        rows = [row(0, 0, 0, ""), row(1, starts[0], 300, "undecided"), row(2, starts[1], 600, "held", slow=1)]
        name = made.write_samples(f"t{trial:03}", HEADER, rows)
        parts = [(1, "application", 10), (1, "invented", 5), (2, "application", 16 + 4 * trial), (2, "files", 3)]
        made.write_samples(f"t{trial:03}-parts", ("applications", "part", "bytes"), parts)
        made.append(Trial(trial, 0, "container", "density", "ok", samples=name))
    made.append(Trial(2, 0, "container", "density", "void", samples="t000.csv"))
    return made


def read(folder: RunFolder) -> Run:
    return read_run(folder)


def test_steps_are_put_together_by_the_number_of_applications(folder: RunFolder) -> None:
    first, second = select_steps(read(folder), "container")
    assert (first.applications, first.start_s.n, second.p50_ms.value) == (1, 2, 4)
    assert first.start_s.value == pytest.approx(0.45) and second.start_s.value == pytest.approx(0.7)
    assert first.p99_ms is None, "3 of 300 are beyond it"
    assert second.p99_ms is not None and second.p99_ms.value == 18
    assert (second.requests, second.slow, second.verdicts) == (1200, 2, ("held", "held"))
    assert select_steps(read(folder), "vm") == ()


def test_memory_is_told_for_one_of_so_many(folder: RunFolder) -> None:
    first, second = select_parts(read(folder), "container")
    assert {name: one.value for name, one in first.parts.items()} == {"application": 10}
    assert {name: one.value for name, one in second.parts.items()} == {"application": 9, "files": 1.5}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\x00\xfe",
        b"applications,start_s\n1,0.5\n",
        b"applications,start_s,requests,slow,p50_ms,p99_ms\n1,nan,1,1,1,1\n1,1e308,1,1,1,1\n-1,1,1,1,1,1\nx,,,,,\n",
        b'applications,part,bytes\n"' + b"x" * 200_000 + b'"\n',
        b"applications,part,bytes,more\n0,application,5\n1,application,1e300\n1,application\n1,application,inf,,,,\n",
    ],
)
def test_damaged_tables_say_nothing(folder: RunFolder, damage: bytes) -> None:
    for path in (folder.path / "samples").iterdir():
        path.write_bytes(damage)
    assert select_steps(read(folder), "container") == ()
    assert select_parts(read(folder), "container") == ()


def test_ramps_of_an_older_testbed_have_no_steps(folder: RunFolder) -> None:
    for path in (folder.path / "samples").glob("t00?.csv"):
        path.write_text("applications,p99_ms\n0,0\n1,5\n")
    (folder.path / "samples" / "t000-parts.csv").unlink()
    assert select_steps(read(folder), "container") == ()
    assert select_parts(read(folder), "container")[0].parts["application"].n == 1
