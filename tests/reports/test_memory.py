"""The parts of a copy's memory: a bar that adds up, a table with a sum, nothing without a virtual machine."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as etree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import reports
from reports import document
from reports.memory import draw_pictures, group_parts, select_measured
from testbed.analysis import PARTS, estimate_memory_parts, read_run
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
    (picture,) = draw_pictures(run)
    words = " ".join(str(text) for text in etree.fromstring(picture.svg).itertext())
    for word in ("vm", "emulated", "388 MiB", "41 MiB", "guest: kernel", "QEMU", "164"):
        assert word in words
    assert "merged, or unattributed -34" in picture.alt
    page = reports.render(path).read_text()
    table = page[page.index("memory goes, at the end of the ramp") :]
    table = table[: table.index("</table>")]
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    for word in ("QEMU: translated code – 90.0 MiB", "merged by KSM – \N{MINUS SIGN}35.0 MiB", "sum 41.0 MiB 388 MiB"):
        assert word in shown
    assert base64.b64encode(picture.svg.encode()).decode() in page


def test_groups_add_up_to_the_parts(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(extra=[ramp(901, "vm", VM)])))
    parts = estimate_memory_parts(run, "vm")
    assert list(parts) == [name for name in PARTS if name in VM]
    assert sum(group_parts(parts).values()) == sum(VM.values())


def test_containers_alone_are_not_told_apart(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(extra=[ramp(900, "container", CONTAINER)])))
    assert select_measured(run) == {}
    assert draw_pictures(run) == []


def test_the_parts_are_in_the_json(write_run: WriteRun) -> None:
    path: Path = write_run(extra=[ramp(901, "vm", VM), ramp(902, "vm", {**VM, "application": 42})])
    found = document.as_json(path)["platforms"]["vm"]["memory_parts"]
    assert found["application"]["value"] == 41 * MIB
    assert found["merged"]["value"] == -35 * MIB
