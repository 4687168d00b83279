"""When a start reached what, of what platforms and ports have told."""

from __future__ import annotations

from testbed.measures.timeline import Timeline, make_timeline
from testbed.services.probe import Answer, Question

PHASES = {"db": {"created": 10, "first_process": 20}, "web": {"created": 12, "first_process": 25}}
ASKED = (Question("web", "10.0.0.2", 80, "/"), Question("db", "10.0.0.1", 5432), Question("db", "10.0.0.1", 5433))


def make(*opened_ns: int, ready_ns: int = 0) -> Timeline:
    first, *others = opened_ns
    answers = (Answer(first, ready_ns), *(Answer(at_ns, at_ns) for at_ns in others))
    return make_timeline(5, PHASES, ASKED, answers, {}, (None, None))


def test_it_is_ready_with_its_first_right_answer_or_when_the_last_port_opened() -> None:
    assert make(30, 40, 35, ready_ns=50).ready_ns == 50
    late = make(30, 60, 35, ready_ns=50)
    assert (late.requested_ns, late.port_open_ns, late.ready_ns) == (5, 30, 60)
    assert late.services == {"db": {**PHASES["db"], "port_open": 60}, "web": {**PHASES["web"], "port_open": 30}}


def test_without_a_port_it_is_ready_when_its_processes_run() -> None:
    line = make_timeline(5, PHASES, (), (), {}, (None, None))
    assert line.services == PHASES and (line.port_open_ns, line.ready_ns) == (25, 25)
