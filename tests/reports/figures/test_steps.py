"""Steps of ramps: the knee is where the service level last held, verdicts have signs, and medians intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from reports import density_tables
from reports.figures.chart import Point
from reports.figures.density import draw_density
from reports.figures.marks import Picture
from reports.figures.steps import find_knee
from testbed.analysis import Run, read_run
from testbed.ramps import Ramp, select_ramps
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any
OLD = ("applications", "cgroup_bytes", "pss_bytes", "available_bytes", "p99_ms")
NEW = (*OLD, "p50_ms", "start_s", "requests", "slow", "slow_low", "slow_high", "windows", "verdict")


def test_the_knee_is_the_last_step_that_held() -> None:
    points = [Point(1, 10), Point(2, 20), Point(3, 300)]
    assert find_knee(points, 2, {3}) == (points[1], points[2])
    assert find_knee(points, 2, set()) == (points[1], None), "the cap ended it"
    assert find_knee(points, 3, {3}) == (points[2], None)
    assert find_knee(points, 0, {1, 2, 3}) == (None, points[0])
    assert find_knee([], 3, {3}) == (None, None)
    assert find_knee([points[0], points[2]], 2, {3}) == (None, points[2]), "no percentile is told of it"


def add_old_ramp(folder: RunFolder, number: int, held: int) -> None:
    rows = [(0, 0.0, 0.0, 9e9, 0.0), *((n, n * 1e8, n * 1e8, 9e9 - n * 1e8, 10.0 * n) for n in range(1, 4))]
    samples = folder.write_samples(f"t{number:03}", OLD, rows)
    metrics = (Metric("applications", held, "1"),)
    folder.append(Trial(number, 1, "container", "density", "ok", "slo: p99", {}, metrics, samples))


def add_ramp(
    folder: RunFolder, number: int, verdicts: Sequence[str], start_s: float = 0.5, platform: str = "container"
) -> None:
    """Add a ramp with a step for each verdict, in which p50 is n ms and p99 10 n ms with n copies."""
    rows: list[tuple[float | str, ...]] = [(0, 0.0, 0.0, 9e9, 0.0, 0.0, 0.0, 0, 0, 0.0, 1.0, 0, "")]
    for n, verdict in enumerate(verdicts, 1):
        requests, slow = (60, 0) if verdict == "undecided" else (900, 45 * (verdict == "broke"))
        bounds = {"held": (0.0, 0.006), "undecided": (0.0, 0.08), "broke": (0.03, 0.07)}[verdict]
        memory = (n * 1e8, n * 1e8, 9e9 - n * 1e8)
        rows.append((n, *memory, 10.0 * n, 1.0 * n, n * start_s, requests, slow, *bounds, 2, verdict))
    samples = folder.write_samples(f"t{number:03}", NEW, rows)
    held = [n for n, verdict in enumerate(verdicts, 1) if verdict == "held"]
    within = len(verdicts) - (verdicts[-1] == "broke")
    metrics = (Metric("applications", within, "1"), Metric("applications_held", max(held, default=0), "1"))
    reason = "slo: 45 of 900" if verdicts[-1] == "broke" else f"cap: {within} applications"
    folder.append(Trial(number, number, platform, "density", "ok", reason, {}, metrics, samples))


@pytest.fixture
def folder(write_run: WriteRun) -> RunFolder:
    return RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0))


def draw(folder: RunFolder) -> dict[str, Picture]:
    return {one.title: one for one in draw_density(read_run(folder))}


def test_the_level_the_knee_and_the_step_that_broke_it_are_marked(folder: RunFolder) -> None:
    add_old_ramp(folder, 1, 2)
    latency = draw(folder)["Latency p99 beside others"]
    ring = re.search(r'class="ring c0" cx="([\d.]+)%"', latency.markup)
    cross = re.search(r'<use href="#cross" class="cross" x="([\d.]+)%"', latency.markup)
    assert ring and cross and float(ring[1]) == pytest.approx(2 / 3.06 * 100, abs=0.1)
    assert float(cross[1]) == pytest.approx(3 / 3.06 * 100, abs=0.1)
    assert 'class="limit"' in latency.markup and "service level 250 ms" in latency.markup
    assert "container held it with 2 copies (slo: p99)" in latency.alt


def test_of_an_older_run_only_what_it_recorded_is_drawn(folder: RunFolder) -> None:
    add_old_ramp(folder, 1, 2)
    first, *memory = draw(folder)
    assert first == "Latency p99 beside others"
    assert len(memory) == 3 and all(title.startswith("Memory of copies") for title in memory)


def test_each_verdict_has_its_sign_in_a_line_of_its_ramp(folder: RunFolder) -> None:
    add_ramp(folder, 1, ("undecided", "held", "held", "broke"))
    add_ramp(folder, 2, ("undecided", "held", "undecided"))
    picture = draw(folder)["How many copies hold the service level"]
    signs = re.findall(
        r'<use href="#\w+" x="([\d.]+)%" y="([\d.]+)" class="[^"]+"><title>(\w+)</title>', picture.markup
    )
    lines = {y: [verdict for _, at, verdict in signs if at == y] for _, y, _ in signs}
    assert list(lines.values()) == [["undecided", "held", "held", "broke"], ["undecided", "held", "undecided"]]
    places = [float(x) for x, y, _ in signs if y == next(iter(lines))]
    assert places == pytest.approx([12.5, 37.5, 62.5, 87.5]), "each in the middle of its part of four"
    assert picture.alt.endswith("container: 3, 2.5 for sure.")


def test_how_long_a_start_takes_beside_others_is_drawn_where_it_is_known(folder: RunFolder) -> None:
    add_ramp(folder, 1, ("held", "held", "held"))
    picture = draw(folder)["Starting beside others"]
    assert picture.alt.partition(": ")[2] == "container 0.5 s with 0, 1.5 s with 2."
    assert "One ramp of each platform." in picture.caption and "whisker" not in picture.markup


def test_several_ramps_are_their_median_with_its_interval(folder: RunFolder) -> None:
    for number in range(1, 7):
        add_ramp(folder, number, ("held", "held"), start_s=0.1 * number)
    picture = draw(folder)["Starting beside others"]
    assert "container 0.35 s with 0, 0.7 s with 1" in picture.alt
    assert picture.markup.count('class="whisker c0"') == 2
    assert "at most 6" in picture.caption and "95 % intervals" in picture.caption


def test_a_percentile_that_too_few_requests_lie_beyond_is_not_drawn(folder: RunFolder) -> None:
    add_ramp(folder, 1, ("undecided", "undecided"))
    pictures = draw(folder)
    assert "Latency p99 beside others" not in pictures and "Latency p50 beside others" in pictures
    add_ramp(folder, 2, ("held",), platform="vm")
    assert "Latency p99 beside others" in draw(folder)


def table_of(run: Run) -> list[list[str]]:
    table = density_tables.make_density_notes(run)[0]
    return [[f"{cell.text}|{cell.below}".rstrip("|") for cell in row] for row in table.rows]


def test_the_table_says_what_each_verdict_rests_on(folder: RunFolder) -> None:
    add_ramp(folder, 1, ("undecided", "held"))
    add_ramp(folder, 2, ("undecided", "broke"))
    first, second = table_of(read_run(folder))
    one = ["container|1 copy", "undecided|2 ramps", "120|in 4 windows", "0|0.00 % to 8.00 %"]
    assert first[:4] == one and first[6] == "–"
    two = ["container|2 copies", "held 1, broke 1|of 2 ramps", "1800|in 4 windows", "45|0.00 % to 7.00 %"]
    assert second == [*two, "1.00 s|range 1.00–1.00", "2.00 ms|range 2.00–2.00", "20.0 ms|range 20.0–20.0"]


def test_of_many_steps_the_table_has_doublings_changes_and_the_last() -> None:
    counts = tuple(map(float, range(1, 101)))
    verdicts = ("undecided",) * 10 + ("held",) * 80 + ("undecided",) * 9 + ("broke",)
    ramp = Ramp(1, "container", 99, "slo", {"applications": counts}, 90, verdicts)
    assert density_tables.pick_counts([ramp]) == (1, 2, 4, 8, 11, 16, 32, 64, 91, 100)
    assert density_tables.pick_counts([]) == ()


def test_of_very_many_steps_the_knee_is_drawn(folder: RunFolder) -> None:
    add_ramp(folder, 1, ("held",) * 217 + ("broke",))
    markup = draw(folder)["Latency p99 beside others"].markup
    assert 'class="ring c0"' in markup and 'class="cross"' in markup


def test_ramps_of_very_many_steps_are_thinned(folder: RunFolder) -> None:
    for number in range(1, 10):
        add_ramp(folder, number, ("held",) * 500)
    run = read_run(folder)
    assert len(select_ramps(run, "container")) == 9
    assert sum(len(picture.markup) for picture in draw(folder).values()) < 150_000
    assert len(table_of(run)) <= 17
