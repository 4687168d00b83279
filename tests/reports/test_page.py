"""The page: needs nothing else, is always the same, and can be drawn from any run folder."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import reports
from reports import document, summary, theme
from reports.figures.density import draw_density
from reports.figures.waterfall import order_stages
from reports.page import render_page
from runtime.errors import UsageError
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


class Figure:
    """A figure of a page: what it shows in words, its visible text, and its markup."""

    def __init__(self, alt: str, markup: str) -> None:
        self.alt = alt
        self.markup = markup
        inner = re.sub(r"<[^>]+>", " ", re.sub(r"<figcaption>.*", "", markup, flags=re.DOTALL))
        self.text = " ".join(unescape(inner).split())


class Page(HTMLParser):
    """A page's elements, figures and visible text; every element that must be closed is."""

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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

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

    @property
    def figures(self) -> list[Figure]:
        found = re.findall(r'<figure(?: class="wide")? aria-label="([^"]*)">(.*?)</figure>', self.text, re.DOTALL)
        return [Figure(unescape(alt), markup) for alt, markup in found]


@pytest.fixture(scope="session")
def full_page(full_run: Path) -> Page:
    """The page of the whole run; only to be read."""
    return Page(full_run / "report.html")


def test_the_page_needs_nothing_else_and_leads_only_into_its_folder(full_page: Page, full_run: Path) -> None:
    identifiers = [attributes["id"] for _, attributes in full_page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = 0
    for _, attributes in full_page.elements:
        assert "src" not in attributes
        href = attributes.get("href", "#start")
        if href.startswith("#"):
            assert href[1:] in identifiers
        else:
            links += 1
            assert (full_run / href).exists() and not href.startswith(("/", ".")) and ":" not in href
    assert links >= 5
    assert re.search(r"url\((?!#h\d\))", full_page.text) is None
    for word in ("<script", "<img", "<link", "@import", "http:", "javascript:"):
        assert word not in full_page.text


def test_the_page_can_be_read_without_seeing_the_pictures(full_page: Page) -> None:
    assert len(full_page.figures) == 14
    assert all(len(figure.alt) > 40 for figure in full_page.figures)
    assert len(list(full_page.all("caption"))) == len(list(full_page.all("table"))) >= 6
    assert all(header["scope"] in ("row", "col") for header in full_page.all("th"))


def test_figures_are_well_formed_and_label_the_emulated_platform(full_page: Page) -> None:
    for figure in full_page.figures:
        etree.fromstring(f"<figure>{figure.markup}</figure>")
        assert ("emulated" in figure.alt) == ("emulated" in figure.text), figure.alt


def test_no_text_is_smaller_than_eleven_pixels(full_page: Page) -> None:
    """Text is not scaled with its figure: no view that is stretched holds any."""
    style = full_page.text[full_page.text.index("<style>") : full_page.text.index("@media print")]
    sizes = re.findall(r"font(?:-size)?:[^;}]*?(\d*\.?\d+)(px|rem|em|pt|vw)", style)
    scale = {"px": 1.0, "rem": 16.0, "em": 16.0, "pt": 4 / 3, "vw": 16.0}
    assert len(sizes) > 20 and min(float(size) * scale[unit] for size, unit in sizes) >= 11
    assert f"figure text, .y-label, .x-label, .key, .matrix {{ font-size: {theme.FIGURE_PX}px" in style
    assert "font-size" not in full_page.text[full_page.text.index("<body>") :]
    for view in re.findall(r'<svg viewBox="[^>]*preserveAspectRatio="none".*?</svg>', full_page.text):
        assert "<text" not in view


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
    ("options", "figures", "said"),
    [
        ({"platforms": ()}, 0, "no trial has ended"),
        ({"platforms": ("container",), "starts": 0, "ramps": 0}, 8, "At 200 requests/s a request took"),
        ({"platforms": ("container",), "ramps": 0, "blocks": 0, "measures": ["start"]}, 5, "was not part of the run"),
        ({"platforms": ("container",), "starts": 1, "ramps": 0, "blocks": 0}, 3, "No trial of this measure succeeded"),
        ({"platforms": ("container",), "starts": 0, "blocks": 0, "ramps": 2}, 6, "each further one"),
        ({"platforms": ("vm",), "starts": 2, "blocks": 1}, 13, "only emulated ones"),
        ({"starts": 0, "ramps": 0, "blocks": 0, "extra": [Trial(1, 1, "vm", "start", "failed", "x" * 3000)]}, 1, "xxx"),
        ({"status": "interrupted", "starts": 1, "ramps": 0, "blocks": 0}, 3, "was interrupted"),
        ({"platforms": ("container", "vm", "kvm")}, 14, "vm (KVM)"),
    ],
)
def test_a_part_of_a_run_is_shown_as_far_as_it_goes(
    write_run: WriteRun, options: dict[str, Any], figures: int, said: str
) -> None:
    page = Page(reports.render(write_run(**options)))
    assert len(page.figures) == figures
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
    assert len(page.figures) == 10
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
        assert "clickme" in render_page(read_run(RunFolder.open(run))) or "scenario" in change, change
        json.dumps(document.as_json(run), allow_nan=False)


@pytest.mark.parametrize("limit", ["text", [], None, -1, 0])
def test_a_service_level_that_is_none_is_not_drawn(write_run: WriteRun, limit: object) -> None:
    run = write_run(platforms=("container",), starts=0, blocks=0, settings={"slo": {"p99_ms": limit}})
    assert "service level" not in draw_density(read_run(RunFolder.open(run)))[0].markup


def test_names_from_outside_stay_text(write_run: WriteRun) -> None:
    label = {"label": "<b>$x$ & co</b>", "emulated": False}
    run = write_run(platforms=("container",), scenario="<script>alert(1)</script>")
    manifest = (run / "manifest.json").read_text().replace('"label": "container"', f'"label": "{label["label"]}"')
    (run / "manifest.json").write_text(manifest)
    page = Page(reports.render(run))
    assert "<script" not in page.text
    assert "<script>alert(1)</script>" in page.shown
    assert page.figures[0].text.count("<b>$x$ & co</b>") >= 1
    assert "<b>$x$ & co</b>" in page.figures[0].alt


HOSTILE = (
    "\"><script>alert(1)</script><img src=x onerror=alert(1)>'; --x:url(javascript:alert(1)) {{ 7*7 }} \ud800 \x00"
)


def test_a_hostile_run_is_shown_as_text(write_run: WriteRun) -> None:
    """Markup in every text that a manifest, a trial or a file's name brings, and addresses that lead elsewhere."""
    metrics = (Metric(f"web.{HOSTILE[:30]}", 0.1, "s"), Metric("ready", 0.4, "s"), Metric("web.created", 0.2, "s"))
    window = {"steal": 1e18, "began_s": -1e18, "took_s": 1e18}
    extra = [
        Trial(900, 9, "container", "start", "ok", metrics=metrics, window=window, samples="../../etc/passwd"),
        Trial(901, 9, "x<y>", 'st"art', "failed", HOSTILE.replace("\ud800", ""), {"rate_per_s": "text"}),
        Trial(902, 9, "container", "utilisation", "void", "late", {"rate_per_s": 1e308}, histogram="/etc/passwd"),
        Trial(
            903, 9, "container", "utilisation", "ok", "", {"rate_per_s": 1e308}, (Metric("cpu_per_request", 1, "s"),)
        ),
        Trial(904, 9, "container", "start", "ok", metrics=(Metric("ready", -5.0, "s"),)),
        Trial(905, 9, "container", "start", "ok", metrics=(Metric("ready", 1e18, "s"),)),
    ]
    run = write_run(platforms=("container", "kvm"), starts=2, extra=extra, scenario=HOSTILE, command=HOSTILE)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["platforms"]["kvm"] = {"label": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}
    manifest |= {"images": {HOSTILE: {"layers": [HOSTILE], "id": HOSTILE}}, "noise": [HOSTILE], "started": HOSTILE}
    manifest |= {"source": {"commit": HOSTILE}, "seed": HOSTILE, "settings": {"load": {"path": HOSTILE}}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    for name in ("t900-web.log", "t900-&quot;><b>.log", "t900-javascript:x.log", "..t900.log"):
        (run / "logs" / name).write_text("")
    page = Page(reports.render(run))
    assert {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "link"} == set()
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert re.fullmatch(r"#\w+|(logs|samples)/[\w.%-]*|\w+\.(json|jsonl|csv)", attributes.get("href", "#x"))
        assert "script" not in attributes.get("style", "")
    assert "49" not in page.figures[0].text.split("{{")[0] or "{{ 7*7 }}" in page.shown
    assert "logs/t900-web.log" in page.text and "etc/passwd" not in page.text
    for figure in page.figures:
        assert not re.search(r"\b(nan|inf)\b", figure.markup.replace("\x00", ""), re.IGNORECASE)


def test_a_page_of_many_platforms_stays_small(write_run: WriteRun) -> None:
    """Fifteen platforms, with a thousand trials more."""
    chance = random.Random(8)
    names = [f"kind-{number}" for number in range(12)]
    extra = [
        Trial(n, n, names[n % 12], "start", "ok", metrics=(Metric("ready", chance.lognormvariate(0, 1), "s"),))
        for n in range(1, 1001)
    ]
    run = write_run(platforms=("container", "kvm", "vm"), ramps=6, blocks=6, extra=extra)
    assert reports.render(run).stat().st_size < 1_500_000


def test_a_damaged_line_of_trials_is_named(write_run: WriteRun) -> None:
    run = write_run(starts=1, ramps=0, blocks=0)
    with (run / "trials.jsonl").open("a") as stream:
        stream.write('{"trial": 1, "block": 1, "platform": "vm", "measure": "start", "outcome": "ok",'
                     ' "metrics": [{"metric": "ready", "value": 1e308, "unit": "s"}]}\n')  # fmt: skip
    with pytest.raises(UsageError, match=r"trials.jsonl:3: not a trial"):
        reports.render(run)


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
    stages = {stage.name: stage for stage in order_stages(run, run.platforms[0])}
    assert stages["web.created"].took_s == pytest.approx(0.4)
    assert stages["web.first_process"].took_s == pytest.approx(0.1)
    assert stages["web.port_open"].took_s == 0, "what is reached at the same time took no time more"
    assert stages["ready"].took_s == pytest.approx(0.2)


def test_what_a_quota_held_back_of_a_service_is_no_phase_of_its_start(write_run: WriteRun) -> None:
    names = ("created", "ready", "web.created", "web.throttled", "web.throttled_periods")
    metrics = tuple(Metric(name, at_s, "s") for name, at_s in zip(names, (0.1, 0.9, 0.1, 0.2, 0.5), strict=True))
    trial = Trial(1, 1, "container", "start", "ok", metrics=metrics)
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=[trial])))
    assert [stage.name for stage in order_stages(run, run.platforms[0])] == ["web.created", "ready"]


def test_a_phase_of_the_application_that_is_a_services_own_is_drawn_once(write_run: WriteRun) -> None:
    figures = (("web.created", 0.1), ("web.port_open", 0.4), ("port_open", 0.4), ("ready", 0.5))
    trial = Trial(1, 1, "container", "start", "ok", metrics=tuple(Metric(name, value, "s") for name, value in figures))
    run = write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=[trial])
    alt = next(figure.alt for figure in Page(reports.render(run)).figures if figure.alt.startswith("Phases"))
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
