"""Verdicts: what was meant, and what the host saw; what the program says of itself decides nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from testbed.probes.lines import Trace
from testbed.probes.model import Probe
from testbed.probes.verdicts import describe, find_intention, judge, set_aside
from testbed.rungs.model import Rung, Statement

PROBE = Probe("files-host-path", "files", "Reads.", "It matters.", "root", "secret", ("read", "{secret}"))
RUNG = Rung("jail-2000", "Jail", 2000, "containers", "words", {})


def said(*of: str) -> tuple[Statement, ...]:
    return (Statement(of, "source", "words"),) if of else ()


BOASTING = Trace(PROBE.name, "ended", "", "I_did_it")


@pytest.mark.parametrize(
    ("forbids", "permits", "done", "verdict"),
    [
        (("files",), (), "seen", "leaked"),
        (("files",), (), "", "blocked"),
        ((), (PROBE.name,), "seen", "permitted"),
        ((), (PROBE.name,), "", "broken"),
        ((), ("files",), "", "blocked"),
        ((), (), "seen", "permitted"),
        ((), (), "", "blocked"),
        (("files",), (PROBE.name,), "seen", "permitted"),
        ((PROBE.name,), ("files",), "seen", "leaked"),
        ((PROBE.name,), ("files",), "", "blocked"),
    ],
)
def test_the_makers_intention_and_the_hosts_sight_make_the_verdict(
    forbids: tuple[str, ...], permits: tuple[str, ...], done: str, verdict: str
) -> None:
    rung = replace(RUNG, forbids=said(*forbids), permits=said(*permits))
    outcome = judge(PROBE, rung.name, rung, BOASTING, done)
    assert (outcome.verdict, outcome.rung, outcome.probe) == (verdict, "jail-2000", PROBE.name)


def test_who_forbids_a_class_means_walls_and_who_permits_one_promises_what_is_its_own() -> None:
    own = replace(PROBE, name="files-change-own", own=True)
    forbidden, permitted = replace(RUNG, forbids=said("files")), replace(RUNG, permits=said("files"))
    assert [find_intention(one, forbidden) for one in (PROBE, own)] == ["forbidden", "unsaid"]
    assert [find_intention(one, permitted) for one in (PROBE, own)] == ["unsaid", "permitted"]


def test_what_is_left_to_others_is_neither() -> None:
    left = replace(RUNG, forbids=said("files"), leaves=said(PROBE.name))
    assert find_intention(PROBE, left) == "unsaid"
    assert find_intention(PROBE, replace(RUNG, leaves=said("files"))) == "unsaid"
    assert find_intention(PROBE, replace(RUNG, forbids=said(PROBE.name), leaves=said("files"))) == "forbidden"


def test_of_what_is_no_rung_nothing_was_meant() -> None:
    assert find_intention(PROBE, None) == "unsaid"
    assert judge(PROBE, "crun", None, BOASTING, "seen").verdict == "permitted"


def test_what_cannot_be_known_says_why() -> None:
    outcome = set_aside(PROBE, "vm", None, "no directory is shared")
    assert (outcome.verdict, outcome.words) == ("untestable", "no directory is shared")


def test_how_an_attempt_ended_is_told() -> None:
    assert describe(Trace("a", "hung")).startswith("it took longer")
    assert describe(Trace("a", "crashed", signal=11)) == "it was ended by SIGSEGV"
    assert describe(Trace("a", "crashed", signal=99)) == "it was ended by signal 99"
    assert describe(Trace("a", "begun")) == "its instance ended with it"
    assert judge(PROBE, "crun", None, Trace("a", "ended", "EPERM"), "").errno == "EPERM"
