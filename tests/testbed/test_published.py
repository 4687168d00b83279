"""Published figures: what is in the file, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.published import FILE, list_marks, read_published
from testbed.scenario.model import load
from testbed.scenario.neighbours import KINDS

SCENARIOS = Path(__file__).parents[2] / "scenarios"
WORK = """\
works:
  a: {authors: A. Author, title: T, venue: V, year: 2020, url: "https://example.org/a", hardware: H}
figures:
"""


def test_a_table_is_found_by_the_figure_that_it_is_like() -> None:
    marks = list_marks("hpc", "work", "linpack")
    assert [mark.platform for mark in marks] == ["native", "container", "vm", "vm-tuned"]
    native, *_, tuned = marks
    assert (native.value, native.unit, native.sd, native.n) == (290.8e9, "flop/s", 1.13e9, 10)
    assert tuned.value / native.value == pytest.approx(0.977, abs=0.001)
    assert native.citation.id == "felter2014" and native.citation.url.startswith("https://doi.org/")
    assert list_marks("hpc", "work", "nothing") == ()


def test_every_figure_of_a_table_is_one_that_a_scenario_has() -> None:
    for mark in read_published():
        if mark.scenario == "any":
            assert mark.figure.split()[0] in KINDS and mark.figure.split()[1] in ("throughput", "latency")
            assert (mark.measure, mark.unit, mark.of) == ("neighbours", "1", "alone")
            continue
        work = load(mark.scenario, SCENARIOS).settings.work
        if mark.citation.id == "felter2014":
            assert work is not None and mark.figure in dict(work.figures)
            assert mark.unit == "1" or mark.where.startswith("section") or (mark.n, mark.sd is None) == (10, False)
        assert mark.sd is None or mark.sd < mark.value


def test_a_readers_words_name_the_reader(tmp_path: Path) -> None:
    reported = [mark for mark in read_published() if mark.checked == "reported"]
    assert len(reported) == 6 and all(mark.via.startswith("https://") for mark in reported)
    file = tmp_path / "published.yaml"
    common = (
        "work: a, where: w, platform: vm, scenario: any, measure: neighbours, figure: f, what: x, value: 1, unit: s"
    )
    file.write_text(WORK + f"  - {{{common}, checked: reported, of: nothing}}\n")
    with pytest.raises(UsageError) as caught:
        read_published(file)
    assert "figures[0].via" in str(caught.value) and "of: is 'nothing'; expected one of native, alone" in str(
        caught.value
    )


def test_every_work_is_cited_by_a_figure() -> None:
    works = {mark.citation for mark in read_published()}
    assert len({citation.id for citation in works}) == FILE.read_text().count("    authors: ") == 7
    assert all(citation.hardware and 2010 < citation.year < 2030 for citation in works)


def test_the_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "published.yaml"
    common = "where: w, platform: vm, scenario: s, measure: m, figure: f, what: x"
    file.write_text(
        WORK
        + f"  - {{work: b, {common}, value: 1, unit: s, checked: quoted}}\n"
        + f"  - {{work: a, {common}, value: many, unit: furlong, checked: guessed, n: 0}}\n"
        + f"  - {{work: a, {common}, unit: s, checked: read}}\n"
    )
    with pytest.raises(UsageError) as caught:
        read_published(file)
    message = str(caught.value)
    for part in (
        ":4: figures[0].work: is 'b'; expected one of a",
        ":5: figures[1].value: is 'many'",
        ":5: figures[1].unit: is 'furlong'",
        ":5: figures[1].checked: is 'guessed'; expected one of recomputed, read, quoted",
        ":5: figures[1].n:",
        ":6: figures[2].value: is missing",
    ):
        assert part in message, message


def test_an_address_is_one_that_can_be_followed(tmp_path: Path) -> None:
    file = tmp_path / "published.yaml"
    file.write_text(WORK.replace("https", "file") + "  []\n")
    with pytest.raises(UsageError, match="an address that begins with https"):
        read_published(file)
