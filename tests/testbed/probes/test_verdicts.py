"""Verdicts: what was meant, and what the host saw; what the program says of itself decides nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from testbed.probes.lines import Trace
from testbed.probes.model import Probe
from testbed.probes.verdicts import describe, find_intention, judge, set_aside
from testbed.rungs.model import Rung

PROBE = Probe("files-host-path", "files", "Reads.", "It matters.", "root", "secret", ("read", "{secret}"))
RUNG = Rung("jail-2000", "Jail", 2000, "containers", "words", {})
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
    rung = replace(RUNG, forbids=forbids, permits=permits)
    outcome = judge(PROBE, rung.name, rung, BOASTING, done)
    assert (outcome.verdict, outcome.rung, outcome.probe) == (verdict, "jail-2000", PROBE.name)


def test_who_forbids_a_class_means_walls_and_who_permits_one_promises_what_is_its_own() -> None:
    own = replace(PROBE, name="files-change-own", own=True)
    assert [find_intention(one, replace(RUNG, forbids=("files",))) for one in (PROBE, own)] == ["forbidden", "unsaid"]
    assert [find_intention(one, replace(RUNG, permits=("files",))) for one in (PROBE, own)] == ["unsaid", "permitted"]
    silent = replace(RUNG, forbids=("files",), unsaid=(PROBE.name,))
    assert find_intention(PROBE, silent) == "unsaid"


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
