"""Fleets in words and as a page: what is concluded, with which interval, and what is not."""

from __future__ import annotations

import pytest

from reports.fleets import page, wording
from reports.fleets.data import COLUMNS, Source, Step, fleets_as_csv, fleets_as_json
from testbed.fleet.demands import Host
from testbed.fleet.distributions import draw_servers, talk_mix
from testbed.fleet.draws import Interval
from testbed.fleet.simulate import Question
from testbed.fleet.study import Extent, Fleet, study_fleet
from testbed.footprints import Footprint
from testbed.history import read_history
from tests.testbed.fleet.conftest import footprint

CONTAINER, MACHINE = footprint("container", 44, 1.0), footprint("vm", 290, 1.3)
EMULATED = footprint("vm-tcg", 400, 2.0, n=1, emulated=True)


def study(*footprints: Footprint) -> Fleet:
    servers = draw_servers(talk_mix(0.08), 150, 1)
    return study_fleet("0.08", Question(servers, footprints, Host(16, 64 * 2**30), draws=50), Extent(sensitivity=True))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return study(CONTAINER, MACHINE)


def test_the_conclusion_has_hosts_bound_and_ratio_with_intervals(fleet: Fleet) -> None:
    sentence = wording.conclude(fleet.outcome)
    assert sentence.startswith("150 servers at ") and "hosts as container (no packing needs fewer than" in sentence
    assert "as vm (KVM) on" in sentence and "times as many." in sentence and "(95 % interval " in sentence


def test_an_emulated_machine_concludes_nothing() -> None:
    found = study(CONTAINER, EMULATED)
    sentence = wording.conclude(found.outcome)
    assert "which says nothing of hardware virtualisation" in sentence and "times as many" not in sentence
    notes = wording.list_notes((CONTAINER, EMULATED), instruction_time=True)
    assert any("emulated; its figures say what the emulator takes" in note for note in notes)
    assert any("too few trials for an interval of memory of the first copy" in note for note in notes)
    assert any("count instructions" in note for note in notes)


def test_a_range_is_not_called_an_interval() -> None:
    assert wording.show_hosts(Interval(5, 4, 7, False), "95 % interval ") == "5 (range of few trials 4–7)"
    assert wording.show_hosts(Interval(5, 4, 7, True), "95 % interval ") == "5 (95 % interval 4–7)"
    assert wording.show_hosts(Interval(12_345, None, None, False)) == "12\N{NARROW NO-BREAK SPACE}345"


def test_history_reads_as_it_was_published() -> None:
    shown = {one.id: wording.show_past(one) for one in read_history()}
    assert (shown["mckinsey2008"], shown["nrdc2014"], shown["tirmazi2020"]) == ("6", "12–18", "above 99")
    assert set(wording.QUANTITIES) >= {one.quantity for one in read_history()}


def test_the_page_is_the_same_each_time_and_escapes_what_it_is_given(fleet: Fleet) -> None:
    source = Source("<run>", "click&me", (CONTAINER, MACHINE), ("a <note>",))
    one, two = (page.render_page(source, [fleet], read_history()) for _ in range(2))
    assert one == two and "<run>" not in one and "a &lt;note&gt;" in one and "click&amp;me" in one
    assert one.count("<figure") >= 6 and "http-equiv" not in one and "<script" not in one


def test_a_page_of_one_platform_says_that_there_is_no_ratio() -> None:
    found = study(CONTAINER)
    assert "there is no ratio that could depend" in page.render_page(Source("r", "s", (CONTAINER,), ()), [found], ())


def test_data_are_complete_and_plain(fleet: Fleet) -> None:
    import json

    document = fleets_as_json(Source("r", "s", (CONTAINER, MACHINE), ()), [fleet], read_history())
    assert json.loads(json.dumps(document, allow_nan=False))["conclusions"] == [wording.conclude(fleet.outcome)]
    lines = fleets_as_csv([fleet]).splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == 3 and all(line.count(",") >= 26 for line in lines)


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (Step("vm", 4, "held", "", "results/r"), "vm: with 4 copies the service level held: results/r"),
        (Step("vm", 1, "broke", "slo: slow", "r"), "vm: with 1 copy the service level broke (slo: slow): r"),
        (Step("vm", 8, "", "memory: short", "r"), "vm: with 8 copies not reached (memory: short): r"),
    ],
)
def test_a_measured_step_says_what_it_saw(step: Step, sentence: str) -> None:
    assert wording.describe_step(step) == sentence
