"""Work in the report, and the table of Felter et al. made of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import reports
from reports import comparisons, felter
from reports.document import as_json
from reports.figures.work import draw_work
from reports.overview import make_overview
from reports.summary import make_table
from reports.work import describe_figure, list_figures, list_published
from testbed.analysis import Run, read_run
from testbed.comparisons import Headline, compare_platforms
from testbed.results import Metric, RunFolder, Trial
from testbed.run_folders import find_newest_of

LINPACK = {"container": 20e9, "vm-tuned": 19e9, "vm": 1e9}
EMULATED = ("vm",)


def write_run(base: Path, run_id: str, scenario: str, linpack: Mapping[str, float] = LINPACK) -> Run:
    """A run folder with two trials of work on each platform."""
    platforms = {name: {"label": f"{name} (TCG)" if name in EMULATED else name} for name in linpack}
    for name in EMULATED:
        platforms.get(name, {})["emulated"] = True  # type: ignore[assignment]
    manifest = {
        "run": run_id,
        "scenario": scenario,
        "measures": ["start", "work"],
        "platforms": platforms,
        "settings": {"work": {"path": "/run", "service": "hpcc", "figures": [["linpack", "Gflop/s"]]}},
    }
    folder = RunFolder.create(base, run_id, manifest)
    number = 0
    for factor in (0.9, 1.1):
        for name, value in linpack.items():
            number += 1
            metrics = (
                Metric("linpack", value * factor, "flop/s"),
                Metric("round_trip", 62e-6 * factor, "s"),
                Metric("work_duration", 2.0, "s"),
                Metric("page_faults", 100.0, "1"),
                Metric("hpcc.throttled", 0.0, "s"),
            )
            folder.append(Trial(number, number, name, "work", "ok", metrics=metrics))
    folder.finish("finished")
    return read_run(folder)


def test_figures_are_shown_in_handy_units_beside_what_they_took(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-hpc", "hpc")
    rows = {row.figure: row.cells for row in make_table(run.folder.path) if row.measure == "work"}
    assert list(rows) == ["linpack", "round trip", "time that the work took, by the host's clock"]
    assert rows["linpack"]["container"] == "20.0 Gflop/s (range 18.0–22.0)"
    assert rows["round trip"]["vm"].startswith("62.0 µs")
    page = reports.render(run.folder.path).read_text()
    assert 'href="#work"' in page and "linpack" in page and "GET /run" in page
    assert "Published figures like these" in page and "10.1109/ISPASS.2015.7095802" in page
    shown = json.loads(json.dumps(as_json(run.folder.path)))["platforms"]["vm-tuned"]["work"]
    assert shown["linpack"]["estimate"]["value"] == pytest.approx(19e9) and shown["linpack"]["unit"] == "flop/s"
    assert shown["page_faults"]["unit"] == "1" and "hpcc.throttled" not in shown


def test_published_figures_are_marks_beside_ours(tmp_path: Path) -> None:
    """In a row of their own, and on the same axis."""
    run = write_run(tmp_path, "run-hpc", "hpc")
    (picture,) = draw_work(run)
    published = [mark for mark in list_published(run) if mark.unit != "1"]
    assert published and picture.markup.count("<circle") == len(published)
    assert "Felter 2014" in picture.markup and "another machine" in picture.caption
    assert picture.alt.count("published for") == len(published)
    assert [one.name for one in make_overview(run).measures][:2] == ["linpack", "round_trip"], "they open the page"


def test_each_figure_is_compared_with_the_first_platform(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-hpc", "hpc")
    compared = [(one.headline, one.baseline, one.platform) for one in compare_platforms(run)]
    assert compared == [(Headline("work", "linpack"), "container", "vm-tuned")], "and not with an emulator's guest"
    assert any("linpack cannot tell" in sentence for sentence in comparisons.describe(run))
    run.manifest["settings"]["work"]["figures"] = "damaged"
    assert compare_platforms(Run(run.folder, run.manifest, run.trials, run.platforms)) == ()


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("s", 2.0, "2.00 s"),
        ("s", 0.002, "2.00 ms"),
        ("s", 2e-6, "2.00 µs"),
        ("bytes/s", 1.5e9, "1.50 GB/s"),
        ("bytes/s", 1.5e6, "1.50 MB/s"),
        ("1/s", 2.5e8, "250 million/s"),
        ("1/s", 250.0, "250 /s"),
        ("parsecs", 3.0, "3.00 parsecs"),
    ],
)
def test_a_unit_is_chosen_by_the_largest_value(unit: str, value: float, shown: str) -> None:
    assert describe_figure("a_figure", unit, value).show(value) == shown
    assert describe_figure("a_figure", unit, value).title == "a figure"


def test_a_run_without_work_has_no_section_of_it(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-none", "clickme", {})
    assert list_figures(run, {}) == []
    assert 'id="work"' not in reports.render(run.folder.path).read_text()


def test_the_table_sets_ratios_beside_those_that_were_published(tmp_path: Path) -> None:
    (row,) = felter.make_rows([write_run(tmp_path, "run-hpc", "hpc")])
    assert (row.scenario, row.figure, list(row.cells)) == ("hpc", "linpack", list(felter.COLUMNS))
    native, container, vm, tuned = row.cells.values()
    assert native.ours is None and native.published is not None
    assert container.ratio == 1.0 and tuned.ratio == pytest.approx(0.95)
    # By the same column as ours, as native was not measured.
    assert container.published_ratio == 1.0
    assert tuned.published_ratio == pytest.approx(284.2 / 290.9)
    assert vm.emulated and vm.ratio is None and vm.ours is not None, "an emulator has no ratio"
    assert vm.published_ratio == pytest.approx(241.3 / 290.9)


def test_native_is_what_others_are_compared_with_where_it_was_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-hpc", "hpc", {"process": 25e9, "container": 20e9})
    (row,) = felter.make_rows([run])
    assert row.cells["native"].ratio == 1.0 and row.cells["container"].ratio == pytest.approx(0.8)
    assert row.cells["vm-tuned"].published_ratio == pytest.approx(284.2 / 290.8)


def test_a_published_ratio_stays_one_to_native(tmp_path: Path) -> None:
    (row,) = felter.make_rows([write_run(tmp_path, "run-net", "net")])
    assert (row.figure, row.cells["vm"].published_ratio, row.cells["container"].published_ratio) == (
        "round_trip",
        1.8,
        2,
    )


def test_of_two_runs_the_later_one_counts(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"run-{index}", "hpc", {"container": value}) for index, value in enumerate((1e9, 3e9))]
    (row,) = felter.make_rows(runs)
    ours = row.cells["container"].ours
    assert ours is not None and ours.estimate.value == pytest.approx(3e9)
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run-2" / "manifest.json").write_text("{")
    assert find_newest_of(tmp_path, ("net", "hpc")) == [tmp_path / "run-1"]


def test_it_is_printed_with_its_conditions(tmp_path: Path) -> None:
    from rich.console import Console

    run = write_run(tmp_path, "run-hpc", "hpc")
    console = Console(width=120, highlight=False)
    with console.capture() as capture:
        console.print(felter.make_table([run]))
    text = capture.get()
    assert "290.8 ± 1.13 Gflop/s" in text and "x 0.98 (n = 10)" in text and "emulated" in text
    assert felter.list_notes([run]) == ("vm (TCG): emulated, so there is no ratio to other platforms.",)
    assert felter.make_rows([]) == ()
    assert felter.as_json([run])[0]["cells"]["vm-tuned"]["published"]["citation"]["year"] == 2014
