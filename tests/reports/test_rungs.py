"""A report of a run with rungs among its platforms says what each keeps apart; any other says nothing of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import reports
from reports.rungs import make_rung_tables
from testbed.analysis import read_run
from testbed.results import RunFolder
from tests.reports.ladder.records import HISTORY


def make_run(write_run: Any, *names: str, run_id: str = "one") -> Path:
    """A run of a container, and of platforms of these names that are not on record otherwise."""
    path: Path = write_run(platforms=("container",), name=run_id, starts=2, ramps=0, blocks=0)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["platforms"] |= {name: {"label": name, "emulated": False} for name in names}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_each_rung_of_a_run_has_a_column(write_run: Any) -> None:
    run = read_run(RunFolder.open(make_run(write_run, "jail-2000", "docker-2013", "crun")))
    (table,) = make_rung_tables(run, HISTORY)
    assert table.head == ("", "FreeBSD jail, 2000", "Docker, 2013") and len(table.rows) == 12
    users = next(row for row in table.rows if row[0].text == "users")
    assert (users[1].text, users[2].text) == ("the host's", "own, by the kernel's table")
    assert users[1].below.startswith("Linux has no such call")


def test_the_section_is_there_for_rungs_only(write_run: Any) -> None:
    page = reports.render(make_run(write_run, "chroot-1982")).read_text()
    assert "What each rung keeps apart" in page and "./invoke ladder --html" in page
    assert "ladder.html" not in page
    without = reports.render(make_run(write_run, "crun", run_id="other")).read_text()
    assert "What each rung keeps apart" not in without


def test_it_leads_to_the_newest_ladder_beside_it(write_run: Any) -> None:
    run = make_run(write_run, "chroot-1982")
    for name in ("20260101T000000Z-ladder-aaaa", "20260301T000000Z-ladder bbbb"):
        (run.parent / name).mkdir()
        (run.parent / name / "ladder.html").touch()
    page = reports.render(run).read_text()
    assert '<a href="../20260301T000000Z-ladder%20bbbb/ladder.html">The ladder\'s page</a>' in page
    assert "./invoke ladder --html" not in page
