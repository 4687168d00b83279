"""Waterfalls: the same phase is in the same row, on one axis."""

from __future__ import annotations

import re
from typing import Any

from reports.figures.waterfall import align, draw_start, order_stages
from testbed.analysis import read_run
from testbed.results import RunFolder

WriteRun = Any


def test_phases_of_all_platforms_are_aligned(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm"), ramps=0, blocks=0)))
    names = align([order_stages(run, one) for one in run.platforms])
    assert names == [
        "redis.request", "redis.created", "redis.kernel_entry", "redis.first_userspace", "redis.first_process",
        "web.request", "web.created", "web.kernel_entry", "web.first_userspace", "web.first_process",
        "port_open", "ready",
    ]  # fmt: skip
    (picture,) = draw_start(run)
    axes = re.findall(r'class="axis".*?</svg>', picture.markup)
    assert len(axes) == 2
    assert len({re.sub(r"--k:\d+|style=\S+", "", axis) for axis in axes}) == 1, "one axis for all"
    ready = next(at for at, name in enumerate(names) if name == "ready")
    assert picture.markup.count(f'class="cell" style="--r:{ready + 2};') == 2
    kernel = names.index("web.kernel_entry")
    assert picture.markup.count(f'class="cell" style="--r:{kernel + 2};') == 1, "a container has none"


def test_many_platforms_are_drawn_four_abreast(write_run: WriteRun) -> None:
    platforms = ("container", "kvm", "vm", "container-pooled", "vm-restored")
    run = read_run(RunFolder.open(write_run(platforms=platforms, starts=1, ramps=0, blocks=0)))
    (picture,) = draw_start(run)
    assert re.findall(r'style="--columns:(\d)"', picture.markup) == ["4", "1"]
