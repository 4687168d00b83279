"""The timeline: a lane for each platform, by time where it was recorded, and failures that lead to their logs."""

from __future__ import annotations

from typing import Any

import pytest

from reports.figures.timeline import draw_timeline, place_trials
from testbed.analysis import read_run
from testbed.results import Outcome, RunFolder, Trial

WriteRun = Any


def trial(number: int, outcome: Outcome = "ok", **window: float) -> Trial:
    return Trial(number, number, "container", "start", outcome, "it <broke>", window=window)


def test_trials_lie_where_they_were_in_time() -> None:
    spans, timed = place_trials([trial(1, began_s=600.0, took_s=30.0), trial(2, began_s=660.0, took_s=60.0), trial(3)])
    assert timed and [(span.begin, span.end) for span in spans] == [(0.0, 0.5), (1.0, 2.0)]


def test_an_older_run_has_no_times() -> None:
    spans, timed = place_trials([trial(1, steal=0.1), trial(2)])
    assert not timed and [(span.begin, span.end) for span in spans] == [(0.0, 1.0), (1.0, 2.0)]
    assert place_trials([]) == ([], False)


def test_what_failed_leads_to_its_log(write_run: WriteRun) -> None:
    extra = [trial(1), trial(2, "failed"), trial(3, "void")]
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=extra)))
    (picture,) = draw_timeline(run, {2: ["logs/t002-web.log"]})
    assert picture.markup.count('<use href="#cross"') == 2
    assert picture.markup.count('<a href="logs/t002-web.log">') == 1
    assert "trial 2, start, failed: it &lt;broke&gt;" in picture.markup
    assert "1 ok" in picture.markup and "2 not ok" in picture.markup
    assert draw_timeline(read_run(RunFolder.open(write_run(platforms=(), name="none"))), {}) == []


@pytest.mark.parametrize("count", [10, 5000])
def test_very_many_trials_are_drawn_as_few_bars(write_run: WriteRun, count: int) -> None:
    extra = [trial(number, began_s=number * 2.0, took_s=1.9) for number in range(1, count + 1)]
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=extra)))
    (picture,) = draw_timeline(run, {})
    assert 1 <= picture.markup.count("block c0") <= 600
