"""Neighbours in the analysis and in the report: ratios by block, what was lost, and published figures beside ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec.structs import replace

import reports
from reports.document import as_json
from reports.figures.neighbours import draw_neighbours
from reports.neighbour_tables import make_tables
from reports.neighbours import choose_tail, describe_effect
from reports.rows import make_table
from reports.summary import compose
from testbed.analysis import Run, read_run
from testbed.histograms import build_histogram
from testbed.interference import Interference, estimate_alone, estimate_interference
from testbed.results import Metric, RunFolder, Trial

PLATFORMS = {"container": False, "vm": True}
BLOCKS = 6
# The factor to alone by case and platform, None where nothing is answered.
Factors = dict[str, float | None]
ALONE: Factors = {"container": 1.0, "vm": 1.0}
SLOWER: dict[str, Factors] = {
    "fork, limits off": {"container": None, "vm": 1.5},
    "spin, limits on": {"container": 1.1, "vm": 1.0},
    "memory, limits off": {"container": 3.0, "vm": 1.2},
}


# What a run records of what both share; one of before that nothing.
SHARED = {"container": "host kernel", "vm": "guest kernel"}


def write_run(base: Path, blocks: int = BLOCKS, shared: Mapping[str, str] = MappingProxyType({})) -> Run:
    """A run with blocks of an application alone and beside three neighbours; it is as slow as its block is."""
    folder = RunFolder.create(
        base,
        "run",
        {
            "run": "run",
            "scenario": "clickme",
            "measures": ["neighbours"],
            "platforms": {
                name: {"label": f"{name} (TCG)" if emulated else name, "emulated": emulated}
                for name, emulated in PLATFORMS.items()
            },
            "settings": {"neighbours": {"kinds": ["spin"], "rate_per_s": 50.0, "window_s": 20.0}},
        },
    )
    number = 0
    for block in range(1, blocks + 1):
        for platform in PLATFORMS:
            for case, factors in (("alone", ALONE), *SLOWER.items()):
                number += 1
                one = trial(folder, number, block, platform, case, factors[platform])
                more = {"shared": shared[platform]} if shared else {}
                folder.append(replace(one, parameters={**one.parameters, **more}))
    folder.finish("finished")
    return read_run(folder)


def trial(folder: RunFolder, number: int, block: int, platform: str, case: str, factor: float | None) -> Trial:
    base_s = 0.010 * block  # a block's own: only ratios within one are the same
    metrics = [
        Metric("achieved_rate", 0.0 if factor is None else 50.0, "1/s"),
        Metric("slo_broken", float(factor is None), "1"),
    ]
    lost = case.startswith("memory") and platform == "container" and block == 1
    metrics += [Metric("survived", float(not lost), "1")]
    if factor is not None:
        metrics += [Metric(f"latency_{name}", base_s * factor * more, "s") for name, more in (("p50", 1), ("p99", 4))]
    if case != "alone":
        metrics += [Metric("neighbour_cpu", 3.5, "s"), Metric("neighbour_killed", 2.0, "1")]
    usec = round(base_s * 1e6 * (factor or 1))
    histogram = folder.write_histogram(f"t{number:03}", build_histogram([usec] * 990 + [usec * 9] * 10), 20.0)
    parameters: dict[str, float | str] = {
        "case": case,
        "rate_per_s": 50.0,
        **({"lost": "it has ended"} if lost else {}),
    }
    return Trial(
        number, block, platform, "neighbours", "ok", parameters=parameters, metrics=tuple(metrics), histogram=histogram
    )


def find(run: Run, platform: str, case: str) -> Interference:
    (found,) = (one for one in estimate_interference(run, platform) if one.case.name == case)
    return found


def test_ratios_are_those_of_blocks_with_their_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    order = [one.case.name for one in estimate_interference(run, "container")]
    assert order == ["spin, limits on", "fork, limits off", "memory, limits off"]
    slow = find(run, "container", "memory, limits off").ratios["latency_p99"]
    assert (slow.value, slow.low, slow.high) == pytest.approx((3.0, 3.0, 3.0)) and slow.is_interval
    assert estimate_alone(run, "container")["latency_p50"].value == pytest.approx(0.035)
    assert "alone" not in order


def test_what_answered_nothing_has_a_throughput_of_none_and_no_latency(tmp_path: Path) -> None:
    effect = find(write_run(tmp_path), "container", "fork, limits off")
    assert effect.ratios.keys() == {"achieved_rate"} and effect.ratios["achieved_rate"].value == 0
    assert (effect.broken, effect.survived, effect.trials) == (6, 6, 6)
    assert str(describe_effect(effect, "latency_p99")) == "nothing answered (in 6 of 6)"


def test_the_rarest_are_pooled_over_blocks(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    pooled = find(run, "vm", "fork, limits off").pooled
    assert pooled == pytest.approx(1.5, rel=0.01), "6,000 requests tell what 1,000 do not"
    (tmp_path / "run" / "samples" / "t001.hdr").write_text("damaged")
    again = read_run(run.folder)
    assert find(again, "container", "memory, limits off").pooled is None
    assert find(write_run(tmp_path / "short", blocks=4), "vm", "fork, limits off").pooled is None


def test_a_case_of_a_damaged_folder_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for case in ("virus, limits on", "spin", 7.0):
        run.folder.append(Trial(900, 1, "container", "neighbours", "ok", parameters={"case": case}))
    assert len(estimate_interference(read_run(run.folder), "container")) == 3


def test_the_tail_is_one_that_most_have(tmp_path: Path) -> None:
    effects = estimate_interference(write_run(tmp_path), "container")
    assert choose_tail(effects) == "latency_p99"
    assert choose_tail([]) == "latency_p50"


def test_the_terminal_and_the_page_say_the_worst_first(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    rows = {row.figure: row.cells for row in make_table(run.folder.path) if row.measure.startswith("beside")}
    assert rows["spin, limits on"] == {"container": "p99 x 1.10 (1.10–1.10)", "vm": "p99 x 1.00 (1.00–1.00)"}
    assert rows["memory, limits off"]["container"] == "lost (in 1 of 6)"
    answer = compose(run)
    assert answer.headline == (
        "The worst neighbour, relative to the application alone: container with limits spin, p99 x 1.10 (1.10–1.10)"
        " and without limits memory, lost (in 1 of 6)."
    )
    assert any("vm (TCG): the worst neighbour with limits spin" in sentence for sentence in answer.details)
    page = reports.render(run.folder.path).read_text()
    assert 'id="neighbours"' in page and "it has ended" in page and "Sharma et al. 2016" in page
    assert "neighbours: fork, limits off" in page, "in the list of trials"
    assert "did not finish" in page and "github.com/dyweb" in page
    (picture,) = draw_neighbours(run)
    assert "fork, limits off, container: nothing answered" in picture.alt


def test_a_table_a_platform_has_a_row_a_neighbour(tmp_path: Path) -> None:
    container, vm, published = make_tables(write_run(tmp_path))
    assert [row[0].text for row in container.rows] == ["alone", *sorted(SLOWER, key=lambda case: "sfm".index(case[0]))]
    assert len(vm.rows) == 4 and len({len(row) for row in container.rows} | {len(container.head)}) == 1
    assert container.rows[0][-3].text == "0 of 6", "alone, too, a level may be broken"
    assert len(published.rows) == 6 and {row[4].text for row in published.rows} == {"reported"}


def test_the_report_says_what_both_share(tmp_path: Path) -> None:
    run = write_run(tmp_path, shared=SHARED)
    container, vm, _ = make_tables(run)
    assert "Both share the host's kernel. " in container.caption
    assert "Both share a guest's kernel, as containers in one virtual machine. " in vm.caption
    (picture,) = draw_neighbours(run)
    assert "Both share on container the host's kernel; on vm (TCG) a guest's kernel, as" in picture.caption
    answer = compose(run)
    assert "container (both share the host's kernel) with limits spin" in answer.headline
    assert any("the worst neighbour (both share a guest's kernel, as" in sentence for sentence in answer.details)
    assert as_json(run.folder.path)["platforms"]["vm"]["neighbours"]["shared"].startswith("a guest's kernel")


def test_a_run_that_does_not_tell_what_is_shared_is_said_nothing_of(tmp_path: Path) -> None:
    for shared in ({}, {"container": "nothing", "vm": "<b>"}):
        run = write_run(tmp_path / str(len(shared)), blocks=1, shared=shared)
        assert not any("share" in table.caption for table in make_tables(run)[:2])
        assert "share" not in draw_neighbours(run)[0].caption


def test_whom_the_guest_killed_is_told_and_what_is_metered_together(tmp_path: Path) -> None:
    run = write_run(tmp_path, blocks=1)
    of_guest = (Metric("guest_killed", 3.0, "1"), Metric("neighbour_killed", 2.0, "1"))
    parameters: dict[str, float | str] = {"case": "disk, limits off"}
    run.folder.append(Trial(900, 1, "vm", "neighbours", "ok", parameters=parameters, metrics=of_guest))
    row = next(row for row in make_tables(read_run(run.folder))[1].rows if row[0].text == "disk, limits off")
    assert (row[-1].text, row[-1].below) == (
        "metered with the application",
        "2 killed, 3 in the guest killed for want of memory",
    )


def test_the_document_is_json(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    document = json.loads(json.dumps(as_json(run.folder.path), allow_nan=False))
    beside = document["platforms"]["container"]["neighbours"]["beside"]
    assert [one["name"] for one in beside][:1] == ["spin, limits on"] and beside[0]["ratios"]["latency_p99"]["n"] == 6


def test_a_run_without_neighbours_has_no_section(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "clickme", "platforms": {"container": {}}})
    folder.finish("finished")
    run = read_run(folder)
    assert draw_neighbours(run) == [] and make_tables(run) == []
    assert 'id="neighbours"' not in reports.render(folder.path).read_text()
