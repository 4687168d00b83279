"""The page: needs nothing else, is always the same, and can be drawn from any run folder."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import reports
from reports import document, figures, html, summary
from runtime.errors import UsageError
from testbed.analysis import estimate_memory_of_copies, read_run, select_ramps
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


class Page(HTMLParser):
    """A page's elements, pictures and visible text; every element that must be closed is."""

    _VOID = ("meta", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.elements if name == tag)

    def pictures(self) -> list[tuple[str, str]]:
        """SVG documents and alternative texts."""
        prefix = "data:image/svg+xml;base64,"
        found = [(image["src"].removeprefix(prefix), image["alt"]) for image in self.all("img")]
        return [(base64.b64decode(source, validate=True).decode(), alt) for source, alt in found]


@pytest.fixture(scope="session")
def full_page(full_run: Path) -> Page:
    """The page of the whole run; only to be read."""
    return Page(full_run / "report.html")


def test_the_page_needs_nothing_else(full_page: Page) -> None:
    identifiers = [attributes["id"] for _, attributes in full_page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in full_page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        href = attributes.get("href", "#start")
        assert href.startswith("#")
        assert href[1:] in identifiers
    assert "url(" not in full_page.text
    assert "<script" not in full_page.text


def test_the_page_can_be_read_without_seeing_the_pictures(full_page: Page) -> None:
    pictures = full_page.pictures()
    assert len(pictures) == 10
    assert all(len(alt) > 40 for _, alt in pictures)
    assert len(list(full_page.all("caption"))) == len(list(full_page.all("table"))) >= 6
    assert all(header["scope"] in ("row", "col") for header in full_page.all("th"))


def test_pictures_are_well_formed_and_label_the_emulated_platform(full_page: Page) -> None:
    pictures = full_page.pictures()
    labelled = 0
    for svg, alt in pictures:
        words = "".join(str(text) for text in etree.fromstring(svg).itertext())
        assert ("emulated" in alt) == ("emulated" in words)
        labelled += "emulated" in words
    assert labelled == len(pictures) - 1  # all but the waterfall of the containers' start


def test_the_same_folder_gives_the_same_bytes_elsewhere(full_run: Path, tmp_path: Path) -> None:
    first = (full_run / "report.html").read_bytes()
    run = tmp_path / full_run.name
    shutil.copytree(full_run, run, ignore=shutil.ignore_patterns("report.html"))
    program = f"import pathlib, reports; reports.render(pathlib.Path({str(run)!r}))"
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    )
    assert (run / "report.html").read_bytes() == first
    assert sorted(path.name for path in run.iterdir()) == [
        "logs", "manifest.json", "metrics.csv", "report.html", "samples", "trials.jsonl",
    ]  # fmt: skip


def test_the_page_opens_with_the_warning_and_the_answer(full_page: Page, write_run: WriteRun) -> None:
    shown = full_page.shown
    warning, headline, start = (
        shown.index(part) for part in ("Emulated, no hardware", "clickme took 0.6", "Every time is")
    )
    assert warning < headline < start
    assert "times as long" not in shown
    hardware = Page(reports.render(write_run(platforms=("container", "kvm"), name="hardware"))).shown
    assert "emulated" not in hardware.lower()
    assert "times as long" in hardware


def test_the_page_tells_how_to_repeat_the_run_and_what_went_wrong(full_page: Page) -> None:
    shown = full_page.shown
    for part in (
        "./invoke bench --scenario clickme --seed 7",
        "sha256:" + "1a" * 32,
        "Seed 7",
        "void: the generator was late",
        "The host was not quiet before the run: load average 3.1",
        "slo: p99 312 ms, more than 250 ms",
        "24.0 GiB",
        "1 March 2026, 12:00 UTC, took 21 min",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("options", "pictures", "said"),
    [
        ({"platforms": ()}, 0, "no trial has ended"),
        ({"platforms": ("container",), "starts": 0, "ramps": 0}, 4, "At 200 requests/s a request took"),
        ({"platforms": ("container",), "ramps": 0, "blocks": 0, "measures": ["start"]}, 1, "was not part of the run"),
        ({"platforms": ("container",), "starts": 1, "ramps": 0, "blocks": 0}, 1, "No trial of this measure succeeded"),
        ({"platforms": ("container",), "starts": 0, "blocks": 0, "ramps": 2}, 4, "each further one"),
        ({"platforms": ("vm",), "starts": 2, "blocks": 1}, 9, "only emulated ones"),
        ({"starts": 0, "ramps": 0, "blocks": 0, "extra": [Trial(1, 1, "vm", "start", "failed", "x" * 3000)]}, 0, "xxx"),
        ({"status": "interrupted", "starts": 1, "ramps": 0, "blocks": 0}, 2, "was interrupted"),
        ({"platforms": ("container", "vm", "kvm")}, 11, "vm (KVM)"),
    ],
)
def test_a_part_of_a_run_is_shown_as_far_as_it_goes(
    write_run: WriteRun, options: dict[str, Any], pictures: int, said: str
) -> None:
    page = Page(reports.render(write_run(**options)))
    assert len(page.pictures()) == pictures
    assert said in page.shown


def test_a_manifest_with_nothing_in_it_is_enough(write_run: WriteRun) -> None:
    run = write_run()
    (run / "manifest.json").write_text('{"run": "bare"}')
    shown = Page(reports.render(run)).shown
    assert "the application took 0.6" in shown
    assert "at an unknown time" in shown


def test_damaged_samples_leave_the_tables(write_run: WriteRun) -> None:
    run = write_run()
    for path in (run / "samples").iterdir():
        path.write_bytes(b"\xff\x00")
    page = Page(reports.render(run))
    assert len(page.pictures()) == 6
    assert "copies within the service level" in page.shown


_ODD: tuple[object, ...] = (None, [], {}, "text", -1, 1e308, True, ["a", {}], {"a": {"b": []}})


@pytest.mark.no_cover
@pytest.mark.parametrize("value", _ODD, ids=repr)
def test_a_manifest_that_holds_something_else_is_shown_as_far_as_it_goes(write_run: WriteRun, value: object) -> None:
    """Each entry in turn, and each setting, is of another kind than a bench writes."""
    run = write_run(starts=0, ramps=0, blocks=0)  # there are no figures to draw, which is what takes long
    manifest = json.loads((run / "manifest.json").read_text())
    settings = manifest["settings"]
    changes: list[dict[str, object]] = [{name: value} for name in manifest if name not in ("run", "format")]
    changes += [{"settings": {**settings, name: value}} for name in settings]
    parts = [(part, name) for part in ("ready", "load", "slo", "density") for name in settings[part]]
    changes += [{"settings": {**settings, part: {**settings[part], name: value}}} for part, name in parts]
    changes += [{"platforms": {"container": value}}, {"images": {"web": value}}]
    for change in changes:
        (run / "manifest.json").write_text(json.dumps({**manifest, **change}))
        assert "clickme" in html.render_page(read_run(RunFolder.open(run))) or "scenario" in change, change
        json.dumps(document.as_json(run), allow_nan=False)


@pytest.mark.parametrize("limit", ["text", [], None, -1, 0])
def test_a_service_level_that_is_none_is_not_drawn(write_run: WriteRun, limit: object) -> None:
    run = write_run(platforms=("container",), starts=0, blocks=0, settings={"slo": {"p99_ms": limit}})
    assert "service level" not in figures.draw_density(read_run(RunFolder.open(run)))[-1].svg


def test_names_from_outside_stay_text(write_run: WriteRun) -> None:
    label = {"label": "<b>$x$ & co</b>", "emulated": False}
    run = write_run(platforms=("container",), scenario="<script>alert(1)</script>")
    manifest = (run / "manifest.json").read_text().replace('"label": "container"', f'"label": "{label["label"]}"')
    (run / "manifest.json").write_text(manifest)
    page = Page(reports.render(run))
    assert "<script" not in page.text
    assert "<script>alert(1)</script>" in page.shown
    svg = page.pictures()[0][0]
    assert "$x$ & co" in "".join(str(text) for text in etree.fromstring(svg).itertext())


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run folder"):
        reports.render(tmp_path)


def test_bars_are_medians_of_durations_and_ties_follow_each_other(write_run: WriteRun) -> None:
    """Differences of medians would make redis 0.2 s and web 0.0: no trial took that."""
    trials = [
        Trial(n, n, "container", "start", "ok", metrics=tuple(Metric(name, at, "s") for name, at in reached.items()))
        for n, reached in enumerate(
            (
                {"web.created": 0.1, "web.first_process": 0.5, "web.port_open": 0.5, "ready": 0.9},
                {"web.created": 0.4, "web.first_process": 0.5, "web.port_open": 0.5, "ready": 0.7},
                {"web.created": 0.5, "web.first_process": 0.6, "web.port_open": 0.6, "ready": 0.8},
            ),
            1,
        )
    ]
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=trials)))
    stages = {stage.name: stage for stage in figures.order_stages(run, run.platforms[0])}
    assert stages["web.created"].took_s == pytest.approx(0.4)
    assert stages["web.first_process"].took_s == pytest.approx(0.1)
    assert stages["web.port_open"].took_s == 0, "what is reached at the same time took no time more"
    assert stages["ready"].took_s == pytest.approx(0.2)


def test_what_a_quota_held_back_of_a_service_is_no_phase_of_its_start(write_run: WriteRun) -> None:
    names = ("created", "ready", "web.created", "web.throttled", "web.throttled_periods")
    metrics = tuple(Metric(name, at_s, "s") for name, at_s in zip(names, (0.1, 0.9, 0.1, 0.2, 0.5), strict=True))
    trial = Trial(1, 1, "container", "start", "ok", metrics=metrics)
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=[trial])))
    assert [stage.name for stage in figures.order_stages(run, run.platforms[0])] == ["web.created", "ready"]


def test_the_memory_figure_draws_the_estimate_that_it_labels(full_run: Path) -> None:
    """The line's two ends in the SVG are the first copy and what further ones add, on the axis's scale."""
    run = read_run(RunFolder.open(full_run))
    memory = estimate_memory_of_copies(select_ramps(run, "container"), "memory_pss")
    assert memory is not None and memory.further is not None
    picture = figures.draw_density(run)[1]
    svg = etree.fromstring(picture.svg)
    assert f"{memory.further.value / 2**20:.1f} MiB each further" in "".join(str(text) for text in svg.itertext())
    lines = [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", ""))]
        for path in svg.iter("{http://www.w3.org/2000/svg}path")
        if "stroke: #0072b2" in path.get("style", "") and "stroke-width: 1." in path.get("style", "")
    ]
    (zero, one), (start, end) = (line for line in lines if len(line) == 2)
    assert start == pytest.approx(one, abs=0.01)
    first_px, further_px = zero[1] - one[1], start[1] - end[1]
    assert further_px / 11 / first_px == pytest.approx(memory.further.value / memory.first.value, rel=1e-3)


def test_a_phase_of_the_application_that_is_a_services_own_is_drawn_once(write_run: WriteRun) -> None:
    figures = (("web.created", 0.1), ("web.port_open", 0.4), ("port_open", 0.4), ("ready", 0.5))
    trial = Trial(1, 1, "container", "start", "ok", metrics=tuple(Metric(name, value, "s") for name, value in figures))
    run = write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=[trial])
    ((_, alt),) = Page(reports.render(run)).pictures()
    assert alt.endswith("web: instance created 0.100 s, web: port open 0.400 s, first correct answer 0.500 s.")


def held_back(number: int, platform: str, fraction: float, **services: float) -> Trial:
    """A start that its quota held back, as it would be recorded."""
    figures = [Metric("ready", 1.0, "s"), Metric("throttled_periods", fraction, "1"), Metric("throttled", 1.25, "s")]
    for service, part in services.items():
        figures += [Metric(f"{service}.throttled_periods", part, "1"), Metric(f"{service}.throttled", 1.25, "s")]
    window = {"throttled_periods": fraction}
    return Trial(number, number, platform, "start", "ok", metrics=tuple(figures), window=window)


def test_what_a_quota_held_back_of_each_instance_is_shown(write_run: WriteRun) -> None:
    folder = write_run(extra=[held_back(900, "container", 0.0, web=0.0), held_back(901, "vm", 0.31, web=0.625)])
    reports.render(folder)
    page = Page(folder / "report.html")
    assert "Held back by the limit of processor time until the application was ready" in page.shown
    assert "web 0 % 1.25 s in all 62.5 % 1.25 s in all" in page.shown.replace("\N{NO-BREAK SPACE}", " ")
    assert "vm (TCG, emulated) in up to 31% of a trial's periods" in page.shown.replace("\N{NO-BREAK SPACE}", " ")
    assert "A machine's quota is for its processors and for QEMU's own threads together" in page.shown
    assert "throttled" not in page.shown.partition("each service")[2].partition("Held back")[0], "it is no phase"


def test_what_is_next_to_nothing_is_not_said_first(write_run: WriteRun) -> None:
    folder = write_run(extra=[held_back(900, "container", 0.004, web=0.008), held_back(901, "vm", 0.2, web=0.4)])
    said = summary.describe_answer(folder)
    assert "vm (TCG, emulated) in up to 20% of a trial's periods" in said and "container in up to" not in said


def test_nothing_is_said_of_quotas_that_held_nothing_back(write_run: WriteRun) -> None:
    folder = write_run(extra=[held_back(900, "container", 0.0, web=0.0)])
    reports.render(folder)
    assert "Held back" not in Page(folder / "report.html").shown
