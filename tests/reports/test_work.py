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
from reports.rows import make_table
from reports.summary import compose
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
                Metric("work_cpu", 1.5 * factor, "s"),
                Metric("page_faults", 100.0, "1"),
                Metric("hpcc.throttled", 0.0, "s"),
            )
            folder.append(Trial(number, number, name, "work", "ok", metrics=metrics))
    folder.finish("finished")
    return read_run(folder)


def test_figures_are_shown_in_handy_units_beside_what_they_took(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-hpc", "hpc")
    rows = {row.figure: row.cells for row in make_table(run.folder.path) if row.measure == "work"}
    taken = ["time that the work took, by the host's clock", "processor time of all services"]
    assert list(rows) == ["linpack", "round trip", *taken]
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
    many = tuple(Metric(f"other_{number}", 1.0, "s") for number in range(9))
    folder = RunFolder.create(tmp_path, "run-many", {"run": "run-many", "scenario": "hpc", "platforms": {"vm": {}}})
    folder.append(Trial(1, 1, "vm", "work", "ok", metrics=(Metric("linpack", 1e9, "flop/s"), *many)))
    folder.finish("finished")
    first, *others = draw_work(read_run(folder))[0].markup.split('class="matrix')[1:]
    assert "published" in first and len(others) == 2 and not any("published" in other for other in others)
    linpack, round_trip, *_ = make_overview(run).measures
    assert (linpack.name, round_trip.name) == ("linpack", "round_trip"), "they open the page"
    assert (linpack.note, round_trip.note) == ("of the work; more is better", "of the work; less is better")


def test_the_answer_says_what_the_work_gave(tmp_path: Path) -> None:
    """Also in a run that measures nothing else: its trials have succeeded."""
    run = write_run(tmp_path, "run-hpc", "hpc")
    answer = compose(run)
    assert answer.headline == (
        "The work of hpc: linpack 20.0 Gflop/s as containers (median of 2; range 18.0–22.0 Gflop/s) and"
        " 19.0 Gflop/s as vm-tuned (median of 2; range 17.1–20.9 Gflop/s);"
        " processor time of all services 1.50 s as containers (median of 2; range 1.35–1.65 s) and"
        " 1.50 s as vm-tuned (median of 2; range 1.35–1.65 s)."
    )
    assert answer.details[-1] == "vm (TCG): linpack 1.00 Gflop/s; processor time of all services 1.50 s."
    assert answer.ratios.startswith("As vm-tuned, hpc had 0.95 times the linpack (?), compared with container")


def test_braces_in_a_name_are_no_format(tmp_path: Path) -> None:
    """A run folder may be anybody's, and have figures of any name."""
    folder = RunFolder.create(
        tmp_path, "run-x", {"run": "run-x", "scenario": "x", "platforms": {"container": {}, "vm": {}}}
    )
    for number, platform in enumerate(("container", "vm"), start=1):
        folder.append(Trial(number, 1, platform, "work", "ok", metrics=(Metric("a{b}{}", float(number), "1/s"),)))
    folder.finish("finished")
    assert compose(read_run(folder)).ratios.startswith("As vm, x had 2 times the a{b}{}")


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
        ("flop/s", 4.71e9, "4.71 Gflop/s"),
        ("flop/s", 27.5e6, "27.5 Mflop/s"),
        ("1/s", 2.5e8, "250 million/s"),
        ("1/s", 250.0, "250 /s"),
        ("parsecs", 3.0, "3.00 parsecs"),
    ],
)
def test_a_unit_is_chosen_by_the_largest_value(unit: str, value: float, shown: str) -> None:
    assert describe_figure("a_figure", unit, value).show(value) == shown
    assert describe_figure("a_figure", unit, value).title == "a figure"


def test_a_finer_unit_is_chosen_where_the_largest_value_is_handy_in_it_too() -> None:
    """A round trip of a container beside that of an emulated machine: 0.00690 ms is no handy number."""
    quantity = describe_figure("round_trip", "s", 3.09e-3, 6.9e-6)
    assert (quantity.show(6.9e-6), quantity.show(3.09e-3)) == ("6.90 µs", "3\u202f090 µs")
    assert describe_figure("round_trip", "s", 30e-3, 6.9e-6).unit == "ms"
    assert describe_figure("round_trip", "s", 3.09e-3, 0.0).unit == "ms"


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


def test_a_published_figure_has_a_ratio_though_its_baseline_was_not_published(tmp_path: Path) -> None:
    """Of Docker there is no run of Redis like ours; what a machine is to native has been published all the same."""
    folder = RunFolder.create(
        tmp_path, "run-kv", {"run": "run-kv", "scenario": "kv", "platforms": {"container": {}, "vm": {}}}
    )
    for number, platform in enumerate(("container", "vm"), start=1):
        folder.append(Trial(number, 1, platform, "work", "ok", metrics=(Metric("get_rate", 1e5, "1/s"),)))
    folder.finish("finished")
    (row,) = felter.make_rows([read_run(folder)])
    native, container, machine, _ = row.cells.values()
    assert native.published is not None and container.published is None and machine.published is not None
    assert machine.published_ratio == machine.published.value / native.published.value and machine.to_native
    printed = print_table(read_run(folder))
    assert "104\u202f015 /s" in printed and "x 0.98 native (n = 1)" in printed and "e+" not in printed


def print_table(run: Run) -> str:
    from rich.console import Console

    console = Console(width=120, highlight=False)
    with console.capture() as capture:
        console.print(felter.make_table([run]))
    return capture.get()


def test_ours_and_the_published_figure_have_one_unit(tmp_path: Path) -> None:
    folder = RunFolder.create(
        tmp_path, "run-net", {"run": "run-net", "scenario": "net", "platforms": {"container": {}}}
    )
    folder.append(Trial(1, 1, "container", "work", "ok", metrics=(Metric("to_server", 656e6, "bytes/s"),)))
    folder.finish("finished")
    printed = print_table(read_run(folder))
    assert "656 MB/s" in printed and "1\u202f162 MB/s" in printed and "GB/s" not in printed


def test_of_two_runs_the_later_one_counts(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"run-{index}", "hpc", {"container": value}) for index, value in enumerate((1e9, 3e9))]
    (row,) = felter.make_rows(runs)
    ours = row.cells["container"].ours
    assert ours is not None and ours.estimate.value == pytest.approx(3e9)
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run-2" / "manifest.json").write_text("{")
    assert find_newest_of(tmp_path, ("net", "hpc")) == [tmp_path / "run-1"]


def test_it_is_printed_with_its_conditions(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run-hpc", "hpc")
    text = print_table(run)
    assert "290.8 ± 1.13 Gflop/s" in text and "x 0.98 (n = 10)" in text and "emulated" in text
    assert felter.list_notes([run]) == ("vm (TCG): emulated, so there is no ratio to other platforms.",)
    assert felter.make_rows([]) == ()
    assert felter.as_json([run])[0]["cells"]["vm-tuned"]["published"]["citation"]["year"] == 2014
