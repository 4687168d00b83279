"""What ramps saw and took, from the files of a run folder, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.analysis import Run, read_run
from testbed.copies import copy_memory
from testbed.measures.steps import Point
from testbed.ramps import (
    Step,
    estimate_memory_of_copies,
    list_counts,
    select_parts,
    select_ramps,
    summarise_steps,
)
from testbed.results import Metric, RunFolder, Trial

HEADER = Point.__struct_fields__


def row(applications: int, start_s: float, requests: int, verdict: str, slow: int = 0) -> list[float | str]:
    named: dict[str, float | str] = dict.fromkeys(HEADER, 0)
    named |= {"applications": applications, "start_s": start_s, "requests": requests, "slow": slow}
    named |= {"p50_ms": 2.0 * applications, "p99_ms": 9.0 * applications, "verdict": verdict}
    named |= {"windows": 2, "slow_low": slow / 1000, "slow_high": (slow + 9) / 1000} if applications else {}
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


def select_steps(run: Run, platform: str) -> tuple[Step, ...]:
    ramps = select_ramps(run, platform)
    return summarise_steps(ramps, list_counts(ramps))


def test_steps_are_put_together_by_the_number_of_applications(folder: RunFolder) -> None:
    first, second = select_steps(read(folder), "container")
    assert first.start_s and second.start_s and second.p50_ms
    assert (first.applications, first.start_s.n, second.p50_ms.value) == (1, 2, 4)
    assert first.start_s.value == pytest.approx(0.45) and second.start_s.value == pytest.approx(0.7)
    assert first.p99_ms is None, "3 of 300 are beyond it"
    assert (first.ramps, first.windows, first.bounds, second.bounds) == (2, 4, (0, 0.009), (0.001, 0.01))
    assert second.p99_ms is not None and second.p99_ms.value == 18
    assert (second.requests, second.slow, second.verdicts) == (1200, 2, ("held", "held"))
    assert select_steps(read(folder), "vm") == ()


def test_memory_is_told_for_one_of_so_many(folder: RunFolder) -> None:
    first, second = select_parts(read(folder), "container")
    assert {name: one.value for name, one in first.parts.items()} == {"application": 10}
    assert {name: one.value for name, one in second.parts.items()} == {"application": 9, "files": 1.5}
    assert (second.total.value, second.total.low, second.total.high) == (10.5, 9.5, 11.5)


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
    for step in select_steps(read(folder), "container"):
        assert step.p50_ms is None or step.p50_ms.value <= 1e18
        assert not step.verdicts and step.bounds is None
    assert select_parts(read(folder), "container") == ()


def test_ramps_of_an_older_testbed_have_what_they_recorded(folder: RunFolder) -> None:
    for path in (folder.path / "samples").glob("t00?.csv"):
        path.write_text("applications,p99_ms\n0,0\n1,5\n")
    (folder.path / "samples" / "t000-parts.csv").unlink()
    (step,) = select_steps(read(folder), "container")
    assert step.p99_ms is not None and step.p99_ms.value == 5
    assert step == Step(1, 2, p99_ms=step.p99_ms)
    assert [(ramp.held, ramp.verdicts) for ramp in select_ramps(read(folder), "container")] == [(None, ())] * 2
    assert select_parts(read(folder), "container")[0].parts["application"].n == 1


def test_a_step_that_only_some_ramps_came_to_is_theirs_alone(folder: RunFolder) -> None:
    rows = [row(0, 0, 0, ""), row(1, 0.6, 900, "held"), row(2, 0.9, 900, "held"), row(3, 2.0, 900, "broke", slow=50)]
    folder.append(Trial(3, 0, "container", "density", "ok", samples=folder.write_samples("t003", HEADER, rows)))
    *_, second, third = select_steps(read(folder), "container")
    assert (second.ramps, second.verdicts) == (3, ("held", "held", "held"))
    assert (third.ramps, third.verdicts, third.slow) == (1, ("broke",), 50)


def _folder(base: Path) -> RunFolder:
    return RunFolder.create(base, "run", {"run": "run", "scenario": "s"})


def _ramp(folder: RunFolder, number: int, each_bytes: float) -> Trial:
    rows = [(copies, copies * each_bytes + (copies > 0) * 50) for copies in range(5)]
    samples = folder.write_samples(f"t{number}", ("applications", "cgroup_bytes"), rows)
    metrics = (Metric("applications", 4, "1"),)
    return Trial(number, number, "container", "density", "ok", "cap: 4", metrics=metrics, samples=samples)


def test_the_memory_of_copies_comes_from_the_steps_of_all_ramps(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 100.0))
    (ramp,) = select_ramps(read_run(folder), "container")
    assert (ramp.applications, ramp.reason) == (4, "cap: 4")
    assert tuple(ramp.points["cgroup_bytes"]) == (0.0, 150.0, 250.0, 350.0, 450.0)
    memory = copy_memory([ramp.points], "memory_cgroup")
    assert memory is not None and memory.further is not None
    assert (memory.first.value, memory.further.value, memory.further.n) == (150, 100, 3)
    folder.append(_ramp(folder, 2, 200.0))
    both = estimate_memory_of_copies(read_run(folder), "container", "memory_cgroup")
    assert both is not None and both.further is not None
    assert (both.first.value, both.further.value, both.further.n, both.ramps) == (200, 150, 6, 2)
    assert copy_memory([ramp.points], "memory_pss") is None


def test_samples_that_no_host_can_have_count_as_none(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 1e308))
    (ramp,) = select_ramps(read_run(folder), "container")
    assert copy_memory([ramp.points], "memory_cgroup") is None


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'a,b\n"1', b"a\n1,2,3\n1\n"])
def test_damaged_samples_do_not_stop_the_analysis(tmp_path: Path, content: bytes | None) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 100.0))
    path = folder.path / "samples" / "t1.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (ramp,) = select_ramps(read_run(folder), "container")
    assert "cgroup_bytes" not in ramp.points
    assert copy_memory([ramp.points], "memory_cgroup") is None
