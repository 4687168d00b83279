"""What came of a probe, told from what the maker of a rung meant, what the program said and what the host saw. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from testbed.probes.lines import Trace
from testbed.probes.model import Intention, Outcome, Probe, Verdict
from testbed.rungs.model import Rung, Statement

_DONE: dict[Intention, Verdict] = {"forbidden": "leaked", "permitted": "permitted", "unsaid": "permitted"}
_FAILED: dict[Intention, Verdict] = {"forbidden": "blocked", "permitted": "broken", "unsaid": "blocked"}


def find_intention(probe: Probe, rung: Rung | None) -> Intention:
    """Return what the maker of a rung meant, from what he said; a statement of the probe weighs more than one of its
    class. Who forbids a class means attempts on walls; who permits one promises what is the rung's own. Of what is no
    rung, nothing is known."""
    if rung is None:
        return "unsaid"
    kinds: tuple[tuple[Sequence[Statement], Intention, bool], ...] = (
        (rung.forbids, "forbidden", not probe.own),
        (rung.permits, "permitted", probe.own),
        (rung.leaves, "unsaid", True),
    )
    for statements, intention, _ in kinds:
        if find_statement(statements, probe.name) is not None:
            return intention
    for statements, intention, is_of_class in kinds:
        if is_of_class and find_statement(statements, probe.kind) is not None:
            return intention
    return "unsaid"


def find_statement(statements: Sequence[Statement], word: str) -> Statement | None:
    """Return the statement of a class or of a probe, by its name."""
    return next((one for one in statements if word in one.of), None)


def judge(probe: Probe, platform: str, rung: Rung | None, trace: Trace | None, seen: str) -> Outcome:
    """Return the outcome of an attempt that was made; ``seen`` is by what the host knows that it was done, empty where
    nothing shows it. What the program itself says decides nothing. ``trace`` None: nothing was printed."""
    intention = find_intention(probe, rung)
    verdict = (_DONE if seen else _FAILED)[intention]
    errno = trace.errno if trace is not None else ""
    return Outcome(platform, probe.name, verdict, intention, errno, seen or describe(trace))


def set_aside(probe: Probe, platform: str, rung: Rung | None, why: str) -> Outcome:
    """Return the outcome of an attempt that could not be made, or of which nothing can be known."""
    return Outcome(platform, probe.name, "untestable", find_intention(probe, rung), words=why)


def describe(trace: Trace | None) -> str:
    """Return how an attempt ended of which the host saw nothing."""
    if trace is None:
        return "it did not come to its turn"
    if trace.state == "hung":
        return "it took longer than its time and was ended"
    if trace.state == "crashed":
        names = {int(one): one.name for one in signal.Signals}
        return f"it was ended by {names.get(trace.signal, f'signal {trace.signal}')}" if trace.signal else "it ended"
    if trace.state == "begun":
        return "its instance ended with it"
    if trace.errno:
        return "the kernel refused it"
    return "it was answered, and the host saw nothing of it"
