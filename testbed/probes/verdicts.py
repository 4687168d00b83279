"""What came of a probe, told from what the maker of a rung meant, what the program said and what the host saw. Pure."""

from __future__ import annotations

import signal

from testbed.probes.lines import Trace
from testbed.probes.model import Intention, Outcome, Probe, Verdict
from testbed.rungs.model import Rung

_DONE: dict[Intention, Verdict] = {"forbidden": "leaked", "permitted": "permitted", "unsaid": "permitted"}
_FAILED: dict[Intention, Verdict] = {"forbidden": "blocked", "permitted": "broken", "unsaid": "blocked"}


def find_intention(probe: Probe, rung: Rung | None) -> Intention:
    """Return what the maker of a rung meant; the probe's own name weighs more than its class's. Who forbids a class
    means attempts on walls; who permits one promises what is the rung's own. Of what is no rung, nothing is known."""
    if rung is None or probe.name in rung.unsaid:
        return "unsaid"
    if probe.name in rung.permits or (probe.own and probe.kind in rung.permits):
        return "permitted"
    if probe.name in rung.forbids or (not probe.own and probe.kind in rung.forbids):
        return "forbidden"
    return "unsaid"


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
