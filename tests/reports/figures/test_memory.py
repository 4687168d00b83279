"""The parts of a copy's memory: a bar that adds up, a table with a sum, nothing without a virtual machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import reports
from reports import document
from reports.figures.memory import draw_memory, group_parts, select_measured
from testbed.analysis import read_run
from testbed.ramps import PARTS, estimate_memory_parts
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any
MIB = 2**20
CONTAINER = {"application": 30, "files": 2, "host_cache": 8, "host_kernel": 1}
VM = {
    "application": 40, "files": 6, "guest_cache": 30, "guest_kernel": 120, "guest_free": 60, "translated_code": 90,
    "emulator_program": 9, "emulator_heap": 25, "boot_files": 40, "host_kernel": 2, "merged": -35, "unexplained": 1,
}  # fmt: skip


def ramp(number: int, platform: str, parts: Mapping[str, float]) -> Trial:
    metrics = (
        Metric("applications", 3, "1"),
        *(Metric(f"part_{name}", size * MIB, "bytes") for name, size in parts.items()),
    )
    return Trial(number, 9, platform, "density", "ok", "cap: 3 applications", metrics=metrics)


def test_every_part_is_in_the_bar_and_the_table(write_run: WriteRun) -> None:
    path = write_run(extra=[ramp(900, "container", CONTAINER), ramp(901, "vm", VM)])
    run = read_run(RunFolder.open(path))
    (picture,) = draw_memory(run)
    words = re.sub(r"<[^>]+>", " ", picture.markup)
    for word in ("vm", "emulated", "388 MiB", "41.0 MiB", "guest: kernel", "QEMU", "164 MiB"):
        assert word in words
    assert "merged, or unattributed -34" in picture.alt
    page = reports.render(path).read_text()
    table = page[page.index("memory goes, at the end of the ramp") :]
    table = table[: table.index("</table>")]
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    for word in ("QEMU: translated code – 90.0 MiB", "merged by KSM – \N{MINUS SIGN}35.0 MiB", "sum 41.0 MiB 388 MiB"):
        assert word in shown
    assert picture.markup in page


def test_groups_add_up_to_the_parts(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(extra=[ramp(901, "vm", VM)])))
    parts = estimate_memory_parts(run, "vm")
    assert list(parts) == [name for name in PARTS if name in VM]
    assert sum(group_parts(parts).values()) == sum(VM.values())


def test_bars_lie_end_to_end_and_end_at_their_sum(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("vm",), starts=0, ramps=0, extra=[ramp(901, "vm", VM)])))
    (picture,) = draw_memory(run)
    bars = [
        (float(x), float(width))
        for x, width in re.findall(r'<rect x="([\d.]+)%" y="[\d.]+" width="([\d.]+)%"', picture.markup)
    ]
    *parts, total = bars
    sizes = list(group_parts(estimate_memory_parts(run, "vm")).values())
    for (left, width), size in zip(parts, sizes, strict=True):
        assert width / total[1] == pytest.approx(abs(size) / sum(sizes), abs=0.002), left
    for (left, width), (following, _) in itertools.pairwise(parts[:-1]):
        assert left + width == pytest.approx(following, abs=0.02)
    assert parts[-1][0] == pytest.approx(total[1], abs=0.02), "what was merged goes back to the sum"


def test_containers_alone_are_not_told_apart(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(extra=[ramp(900, "container", CONTAINER)])))
    assert select_measured(run) == {}
    assert draw_memory(run) == []


def test_the_parts_are_in_the_json(write_run: WriteRun) -> None:
    path: Path = write_run(extra=[ramp(901, "vm", VM), ramp(902, "vm", {**VM, "application": 42})])
    found = document.as_json(path)["platforms"]["vm"]["memory_parts"]
    assert found["application"]["value"] == 41 * MIB
    assert found["merged"]["value"] == -35 * MIB


def add_ramp_with_steps(folder: RunFolder, number: int, platform: str, held: Mapping[int, Mapping[str, float]]) -> None:
    """Add a ramp at whose steps one copy holds so many MiB of each part, by the number of copies."""
    rows = [(count, name, count * size * MIB) for count, parts in held.items() for name, size in parts.items()]
    folder.write_samples(f"t{number:03}-parts", ("applications", "part", "bytes"), rows)
    samples = folder.write_samples(f"t{number:03}", ("applications",), [(0,), *((count,) for count in held)])
    metrics = (Metric("applications", max(held), "1"),)
    folder.append(Trial(number, number, platform, "density", "ok", "cap", metrics=metrics, samples=samples))


def test_a_copy_beside_others_is_a_bar_for_each_number_of_copies(write_run: WriteRun) -> None:
    folder = RunFolder.open(write_run(platforms=("container", "vm"), starts=0, ramps=0, blocks=0))
    for number, more in ((1, 0), (2, 2), (3, 4)):
        steps = {1: {"application": 30 + more, "host_cache": 10}, 2: {"application": 30 + more, "host_cache": 5}}
        add_ramp_with_steps(folder, number, "container", steps)
    add_ramp_with_steps(folder, 4, "vm", {1: {"application": 40, "guest_kernel": 60, "merged": -20}})
    (picture,) = draw_memory(read_run(folder))
    assert picture.title == "Memory of a copy beside others"
    assert "container 42.0 MiB with 1, 37.0 MiB with 2; vm (TCG, emulated) 80.0 MiB with 1" in picture.alt
    assert "40.0–44.0" in picture.markup and "1 copy" in picture.markup and "2 copies" in picture.markup
    bars = re.findall(r'<rect x="([\d.]+)%" y="4" width="([\d.]+)%" height="14" class="bar c(\d)"', picture.markup)
    assert [hue for *_, hue in bars] == ["0", "3", "0", "3", "0", "2"], "what was merged is taken off at the sum"
    for (left, width, _), (following, _, _) in zip(bars[::2], bars[1::2], strict=True):
        assert float(left) + float(width) == pytest.approx(float(following), abs=0.02), "laid end to end"
    lines = re.findall(r'x1="([\d.]+)%" y1="1" x2="\1%" y2="21" class="median sum"', picture.markup)
    assert float(lines[-1]) / float(lines[0]) == pytest.approx(80 / 42, abs=0.01)


def test_one_number_of_copies_is_no_course(write_run: WriteRun) -> None:
    folder = RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0))
    add_ramp_with_steps(folder, 1, "container", {1: {"application": 30}})
    assert draw_memory(read_run(folder)) == []
