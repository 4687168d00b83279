"""A comparison as text, page and data says the same, the worst first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.runs import data, page, terminal, trends, wording
from testbed.runs.compare import Comparison, Limits, compare_sides
from testbed.runs.figures import DIRECTIONS, Figure
from testbed.runs.sides import read_side
from testbed.runs.trend import read_trends

WriteRun = Callable[..., Path]


@pytest.fixture
def comparison(write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    before = write_run(name="20260301T000000Z-clickme-aaaa", platforms=("container", "kvm"), blocks=6, ramps=6)
    scale = write_run.func.__globals__["SCALE"]  # type: ignore[attr-defined]
    monkeypatch.setitem(scale, "container", (0.9, 0.00045, 44 << 20))
    after = write_run(name="20260302T000000Z-clickme-bbbb", platforms=("container", "kvm"), blocks=6, ramps=6, seed=9)
    base = before.parent
    return compare_sides(read_side(before.name, base), read_side(after.name, base), Limits())


def test_the_terminal_has_every_figure_and_the_worst_first(
    comparison: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.print_comparison(comparison, gate=True)
    text = capsys.readouterr().out
    assert text.index("seed: 7 → 9") < text.index("first correct answer")
    assert "figures got worse by more than was allowed" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert f"{sum(row.is_quiet for row in comparison.rows)} more, not judged" in text
    for row in (row for row in comparison.rows if not row.is_quiet):
        assert wording.describe_figure(row.figure).title.split(",")[0] in re.sub(r"\s+", " ", text)


def test_all_that_is_said_is_in_the_json(comparison: Comparison) -> None:
    document = json.loads(json.dumps(data.as_json(comparison), allow_nan=False))
    assert document["schema"] == "testbed-comparison/1"
    assert (document["result"], document["exit_code"]) == ("regression", 3)
    assert document["sentence"] == wording.describe_result(comparison)
    harms = [round(figure["harm"], 6) for figure in document["figures"]]
    assert harms == sorted(harms, reverse=True) and len(harms) == len(comparison.rows)
    assert document["notes"] == list(comparison.notes)
    assert {one["name"] for one in document["differences"]} == {"seed"}


def test_the_page_has_the_same_rows_and_is_the_same_each_time(comparison: Comparison) -> None:
    text = page.render_page(comparison, gate=True)
    assert text == page.render_page(comparison, gate=True)
    assert text.count('<th scope="row">') == text.count("<svg") == len(comparison.rows)
    assert wording.describe_result(comparison) in text and "http" not in text


def test_a_picture_never_leaves_its_frame(comparison: Comparison) -> None:
    for picture in (page.draw_change(row, 0.001) for row in comparison.rows):
        for place in re.findall(r'(?:x1|x2|cx)="([^"]+)"', picture):
            assert 0 <= float(place) <= 220


def test_every_figure_has_a_title_and_shows_its_unit() -> None:
    for measure, metrics in DIRECTIONS.items():
        for metric, direction in metrics.items():
            quantity = wording.describe_figure(Figure("container", measure, metric, 50.0 * (measure == "utilisation")))
            assert quantity.title and "_" not in quantity.title
            if direction.unit == "bytes":
                assert quantity.show(2**20) == "1.00 MiB"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0 %"), (0.1234, "+12.3 %"), (-0.001, "\N{MINUS SIGN}0.10 %"), (3.0, "+300 %"), (1e-9, "0 %")],
)
def test_changes_read_as_signed_percentages(value: float, shown: str) -> None:
    assert wording.show_percent(value) == shown


def test_a_gate_that_cannot_tell_says_what_it_would_have_seen(write_run: WriteRun) -> None:
    before, after = write_run(name="a", starts=12, ramps=0, blocks=0), write_run(name="b", starts=12, ramps=0, blocks=0)
    compared = compare_sides(read_side("a", before.parent), read_side("b", after.parent), Limits(all=0.0001))
    assert compared.result == "cannot tell"
    assert re.search(r"changes could have been seen from \+\d+\.\d % on", wording.describe_result(compared))


def test_a_trend_names_run_and_commits(write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = write_run.func.__globals__["SCALE"]  # type: ignore[attr-defined]
    base = Path()
    for day in range(1, 17):
        ready_s = (0.6 if day < 10 else 0.8) * (1 + 0.002 * (day % 3))
        monkeypatch.setitem(scale, "container", (ready_s, 0.00045, 44 << 20))
        started = f"2026-03-{day:02}T00:00:00+00:00"
        commit = {"commit": f"{day:02}" * 20, "dirty": False}
        base = write_run(
            name=f"r{day:02}", platforms=("container",), starts=6, ramps=0, blocks=0, started=started, source=commit
        ).parent
    read = read_trends(base)
    lines = list(trends.describe_trends(read))
    assert "  since r10 (commit 090909090909 → 101010101010):" in lines
    assert any(line.startswith("    worse: container, first correct answer: +33") for line in lines)
    document = json.loads(json.dumps(trends.as_json(read), allow_nan=False))
    assert document["schema"] == "testbed-trend/1"
    assert {one["run"] for one in document["trends"][0]["changes"]} == {"r10"}
