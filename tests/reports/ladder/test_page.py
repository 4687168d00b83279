"""The ladder's page: it needs nothing else, is the same for the same record, and shows what is on record."""

from __future__ import annotations

import html
import re

import pytest
from msgspec.structs import replace

from reports import theme
from reports.ladder.page import render_page
from reports.ladder.view import make_view
from reports.ladder.wording import ATTACKS, DOES, WORDS, describe_pressure
from testbed.ladder.model import INSTRUCTIONS, Cost, Ladder, Missing, Pressure, Snippet
from testbed.probes.model import Outcome
from tests.reports.ladder.records import HISTORY, PROBES, make_ladder

HOSTILE = '"><script>alert(1)</script>\x1b[31m'


def render(ladder: Ladder) -> str:
    return render_page(make_view(ladder, HISTORY, PROBES))


@pytest.fixture(scope="module")
def page() -> str:
    return render(make_ladder())


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page and "src=" not in page and "@import" not in page and "url(http" not in page
    assert page.count("<svg") > 20
    leads = set(re.findall(r'href="#([^"]+)"', page))
    targets = set(re.findall(r'id="([^"]+)"', page))
    assert leads <= targets


def test_the_same_record_gives_the_same_bytes(page: str) -> None:
    assert render(make_ladder()) == page


def test_what_was_found_comes_first_and_in_words(page: str) -> None:
    header = page[page.index("<header>") : page.index("</header>")]
    assert "jail-2000: files-1 leaked. It tries way 1 of files." in header
    assert "jail-2000: network-2 is broken." in header
    assert "2 leaked where they were meant not to, 1 of which is known" in header
    known = page[page.index('<section id="known">') : page.index('<section id="price">')]
    assert '<a href="#class-files">files-2</a> leaked: It tries way 2 of files.' in known
    assert "jail-2000: files-2 leaked." not in header
    assert 'It was found a year later. <a class="cite" href="#source-1"' in known


def test_cells_lead_to_probes_and_sources(page: str) -> None:
    row = re.search(r"<tr><th scope=\"row\"><a href=\"#rung-jail-2000\">jail-2000</a></th><td><b>.*?</tr>", page)
    assert row and 'href="#class-files"' in row[0] and "has-leak" in row[0]
    assert 'href="#source-1"' in page and "SANE, 2000" in page
    assert "a cgroup filter stands for it" in page and "EPERM" in page
    assert "It needs root" in page and "no Xen here" in page and "Told, not run." in page


def test_instruction_time_is_never_called_seconds_alone(page: str) -> None:
    said = "All times are instruction time"
    ladder = make_ladder()
    counted = render(replace(ladder, costs=tuple(replace(one, clock=INSTRUCTIONS) for one in ladder.costs)))
    assert said not in page and "all are timed by one clock, the host's." in page
    assert counted.count(said) == 2 and "all are timed by one clock, the reference machine's." in counted
    header = counted[counted.index("<header>") : counted.index("</header>")]
    assert ", in instruction time." in header


def test_what_a_maker_said_and_how_sources_were_looked_up_is_shown(page: str) -> None:
    story = page[page.index('id="rung-jail-2000"') : page.index('id="rung-vserver-2001"')]
    assert "What its maker said: 3 statements" in story and "neither files nor processes of others" in story
    assert "<td>leaves open</td><td>time</td>" in story
    assert 'title="chroot(2) (not read)">[2?]</a>' in page and ">[1]</a>" in page
    sources = page[page.index('<section id="sources">') :]
    assert "Read: section 5." in sources and "Not read: not at hand." in sources


def test_costs_have_intervals_and_an_emulated_machine_says_so(page: str) -> None:
    assert "vm (TCG, emulated)" not in page and "hardware-2006 (emulated)" in page
    table = page[page.index("<caption>Medians with 95 % intervals") :]
    assert "95 % intervals" in table and "2\N{NARROW NO-BREAK SPACE}200" in table.replace("\N{NO-BREAK SPACE}", " ")
    assert "Where the time of a start goes" in page and "clone3 with a new namespace: pid" in page
    assert "$ chroot /tmp/root /bin/ls /" in page and "HURT" in page


def test_where_names_beside_dots_have_no_room_the_rungs_are_a_list(page: str) -> None:
    names = page[page.index('<div class="by-year">') : page.index('<section id="probes">')]
    assert [names.count(f'href="#rung-{one.name}"') for one in HISTORY.rungs] == [1] * len(HISTORY.rungs)
    assert "<span>2003</span>" in names and "CP-67</a> <small>not run here</small>" in names
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@media (max-width: 56rem), print { .by-year { display: block; } .years text.name" in style


def test_what_was_not_tried_is_told_beside_the_rung_and_where_it_is_missed() -> None:
    missing = (
        Missing("chroot-1982", "load: it does not answer", "price"),
        Missing("hardware-2006", "each attack is a start", "pressure"),
    )
    page = render(replace(make_ladder(), missing=missing))
    assert "Not priced: load: it does not answer." in page
    assert re.search(r"<li>hardware-2006[^<]*: each attack is a start</li>", page)


def test_the_commit_and_the_versions_that_measured_are_told() -> None:
    source, versions = {"commit": "abc123", "dirty": True}, {"qemu": "QEMU 7.2", "mmdebstrap": None}
    page = render(replace(make_ladder(), source=source, versions=versions))
    assert "abc123, with changes" in page and "QEMU 7.2" in page and "mmdebstrap" not in page


def test_words_and_attacks_are_explained(page: str) -> None:
    for words in (*WORDS.values(), "takes all that it can get"):
        assert f"<dd>{html.escape(words, quote=True).replace('&#x27;', '&#39;')}</dd>" in page
    assert ATTACKS.keys() == DOES.keys()


def test_what_stopped_an_attacker_is_told() -> None:
    figures = {"part": 1.04, "took": 5.0, "refused": 3.0, "killed": 0.0}
    assert describe_pressure(Pressure("a", "disk", True, "words", figures)) == "100% of its work; refused more"
    assert describe_pressure(Pressure("a", "disk", True, "words", {})) == "words"


def test_what_comes_from_a_record_stays_text() -> None:
    ladder = make_ladder()
    page = render(
        replace(
            ladder, id=HOSTILE, host={HOSTILE: HOSTILE}, rungs=(*ladder.rungs, HOSTILE), labels={"crun": HOSTILE},
            missing=(Missing(HOSTILE, HOSTILE),), snippets=(Snippet(HOSTILE, 1, (HOSTILE,), HOSTILE, 1, HOSTILE),),
            outcomes=(*ladder.outcomes, Outcome("crun", "files-1", "leaked", "forbidden", HOSTILE, HOSTILE),
                      Outcome(HOSTILE, "files-1", "blocked", "unsaid"), Outcome("crun", HOSTILE, "blocked", "unsaid")),
            costs=(*ladder.costs, Cost(HOSTILE, "start_s", (1.0,)), Cost("crun", HOSTILE, (1.0,))),
        )
    )  # fmt: skip
    assert "<script" not in page and "&lt;script" in page


def test_a_record_of_nothing_is_shown_as_far_as_it_goes() -> None:
    page = render(Ladder("x", "", {}, (), (), (), (), (), ()))
    assert "No probes are on record" in page and "Nothing was priced" in page
    partial = render(replace(make_ladder(), outcomes=(), steps=(), pressures=(), snippets=()))
    assert "No probes are on record" in partial and "Medians with 95 % intervals" in partial
    one = render(replace(make_ladder(), costs=(Cost("container", "start_s", (0.0,)),)))
    assert "To start container takes" in one


def test_no_text_is_smaller_than_eleven_pixels(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")].split("@media print")[0]
    sizes = [float(size) for size in re.findall(r"font-size:\s*([\d.]+)px", style)]
    assert sizes and min(sizes) >= 11


@pytest.mark.parametrize("dark", [False, True])
def test_figures_in_cells_can_be_read_on_their_ground(dark: bool) -> None:
    named = theme.DARK if dark else theme.LIGHT
    for ground in theme.list_shares(dark):
        assert theme.contrast(named["ink"], ground) >= 4.5
