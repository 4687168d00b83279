"""What hardware charges for: counts, and ratios that move with an assumed price of an exit."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

import reports
from reports import charges, document, summary
from reports.charges import PUBLISHED, Charged, list_load_counts, list_start_counts, select_ratios
from reports.figures.load import draw_load
from reports.figures.prices import draw_ratios
from reports.figures.waterfall import draw_start
from testbed.analysis import Platform, read_run
from testbed.results import Metric, RunFolder, Trial
from tests.reports.conftest import WriteRun, load_trial, start_trial

REFERENCE = {"kind": "reference"}
EMULATED_HOST = {"label": "vm (KVM on an emulated host)", "emulated": False, "accelerator": "kvm"}


def _counted(number: int, platform: str, exits: int | None) -> Trial:
    trial = start_trial(number, platform, random.Random(number))
    counts = {"page_faults": 900, "context_switches": 70, "major_faults": 0, "host_interrupts": 400}
    counts |= {"exits": exits, "exits_io": exits // 2, "exits_other": exits - exits // 2} if exits else {}
    extra = tuple(Metric(name, value, "1") for name, value in counts.items())
    ready = Metric("ready", 2.0 if exits is None else 6.0, "s")
    kept = tuple(metric for metric in trial.metrics if metric.metric != "ready")
    return Trial(number, number, platform, "start", "ok", metrics=(*kept, ready, *extra))


def _loaded(number: int, platform: str, exits: float | None) -> Trial:
    trial = load_trial(number, platform, 50.0, random.Random(number))
    extra = [Metric("page_faults_per_request", 2.5, "1")]
    extra += [Metric("exits_per_request", exits, "1")] if exits else []
    return Trial(number, number, platform, "utilisation", "ok", "", {"rate_per_s": 50.0}, (*trial.metrics, *extra))


@pytest.fixture
def folder(write_run: WriteRun) -> Path:
    """A run of the reference machine, of a container and of machines under KVM."""
    trials = [_counted(1, "container", None), _counted(2, "kvm", 100_000)]
    trials += [_loaded(3, "container", None), _loaded(4, "kvm", 60)]
    path = write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=trials, machine=REFERENCE)
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["host"], manifest["platforms"]["kvm"] = {"hypervisor": "qemu"}, EMULATED_HOST
    file.write_text(json.dumps(manifest))
    return path


def test_a_ratio_grows_by_the_exits_at_their_price() -> None:
    one = Charged(Platform("vm", "vm", False, {}), 6.0, 1_000_000, 2.0)
    assert (one.ratio(0), one.ratio(1), one.ratio(4)) == (3.0, 3.5, 5.0)


def test_starts_and_requests_are_charged(folder: Path) -> None:
    start, load = select_ratios(read_run(RunFolder.open(folder)))
    assert [(one.seconds, one.exits, one.container_s) for one in start.charged] == [(6.0, 100_000, 2.0)]
    assert [one.exits for one in load.charged] == [60]
    assert load.what == "CPU time per request at 50 requests/s"
    picture, _ = draw_ratios(read_run(RunFolder.open(folder)))
    assert "vm (KVM) from 3.00 to 3.20" in picture.alt
    assert all(f">{number}</text>" in picture.markup for number in range(1, len(PUBLISHED) + 1))


def test_on_a_host_of_its_own_the_price_is_paid_already(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": None}))
    run = read_run(RunFolder.open(folder))
    assert select_ratios(run) == []
    assert [row.name for row in list_start_counts(run)][:2] == ["exits", "exits_io"]
    page = reports.render(folder).read_text()
    assert "On this host that is in the times above" in page and "Published prices" not in page


def test_the_hypervisor_of_the_reference_machine_is_named(folder: Path) -> None:
    assert "KVM there is the real KVM" in summary.compose(read_run(RunFolder.open(folder))).warnings[0]
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["platforms"]["kvm"]["accelerator"] = "xen"
    file.write_text(json.dumps(manifest))
    assert "Xen there is the real Xen" in summary.compose(read_run(RunFolder.open(folder))).warnings[0]


def test_counts_are_absent_and_say_why_rather_than_zero(folder: Path) -> None:
    rows = {row.name: row for row in list_start_counts(read_run(RunFolder.open(folder)))}
    assert "container" not in rows["exits"].estimates and rows["exits"].estimates["kvm"].value == 100_000
    assert "major_faults" not in rows, "of which there were none anywhere"
    rate, for_each = list_load_counts(read_run(RunFolder.open(folder)))
    assert rate == 50 and [row.name for row in for_each] == ["exits", "page_faults"]
    emulated = Platform("vm", "vm (TCG, emulated)", True, {"accelerator": "tcg"})
    run = read_run(RunFolder.open(folder))
    assert charges.explain_absence(run, emulated, "exits_io") == "emulated: none"
    assert charges.explain_absence(run, run.platforms[0], "exits") == "no guest"
    assert charges.explain_absence(run, run.platforms[0], "context_switches") == "not counted"


def test_instruction_time_says_so_everywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = summary.compose(read_run(RunFolder.open(folder)))
    assert answer.warnings[0].startswith("All times are instruction time: one instruction a nanosecond")
    assert not any("cost more than on a machine of its own" in text for text in answer.warnings)
    assert answer.headline.endswith("in the reference machine, in instruction time.")
    assert "as virtual machines" not in answer.headline and "vm (KVM)" in answer.headline
    assert all("instruction time" in sentence for sentence in answer.details if " ms" in sentence)
    summary.print_answer(folder)
    printed = capsys.readouterr().out
    assert "\ninstruction time " in printed and printed.rstrip().endswith("on an emulated processor.")
    assert "emulated host" not in printed
    data = document.as_json(folder)
    assert data["clock"] == "instructions"
    assert data["platforms"]["kvm"]["start_counts"]["exits"]["value"] == 100_000


def test_the_page_names_instruction_time_in_axes_and_heads(folder: Path) -> None:
    page = reports.render(folder).read_text()
    assert '<th scope="col">phase, in instruction time</th>' in page
    assert '<th scope="col">offered, in instruction time</th>' in page
    assert "Seconds of instruction time since the application was requested" in page
    assert "Compare platforms within a run; do not compare figures of different hosts" not in page
    for one in PUBLISHED:
        assert one.name in page
    run = read_run(RunFolder.open(folder))
    shown = [f"{picture.markup} {picture.caption}" for picture in (*draw_start(run), *draw_load(run))]
    timed = [text for text in shown if re.search(r"[sS]econds (of|since)|>ms|in ms", text)]
    assert len(timed) == 3 and all("of instruction time" in text for text in timed)


def test_every_published_price_names_its_source_and_lies_in_the_chart() -> None:
    for one in PUBLISHED:
        assert 0 < one.low_usec <= one.high_usec and one.low_usec < charges.HIGHEST_PRICE_USEC
        assert "cycles" in one.figure and one.source
