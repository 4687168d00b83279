"""When services are asked for their health, and what comes of it."""

from __future__ import annotations

import threading

from runtime.errors import UsageError
from testbed.compose.model import Healthcheck
from testbed.services.health import Checks, Course
from tests.waiting import until

CHECK = Healthcheck(("true",), interval_s=10, timeout_s=1, retries=2, start_period_s=30, start_interval_s=2)


def test_a_service_becomes_healthy_and_ill_again() -> None:
    course = Course.begin(CHECK, 100)
    assert (course.state, course.due_s) == ("starting", 102)
    course = course.note(1, 103)
    assert (course.state, course.failures, course.due_s) == ("starting", 0, 105), "not counted in the start period"
    course = course.note(0, 106)
    assert (course.state, course.due_s) == ("healthy", 116)
    course = course.note(None, 117)
    assert (course.state, course.failures) == ("healthy", 1)
    assert course.note(0, 127).failures == 0
    assert course.note(5, 127).state == "unhealthy"
    assert course.note(5, 127).note(0, 137).state == "healthy"


def test_after_the_start_period_failures_count() -> None:
    course = Course.begin(CHECK, 0).note(1, 31)
    assert (course.state, course.failures, course.due_s) == ("starting", 1, 41)
    assert course.note(1, 41).state == "unhealthy"


def test_without_a_start_period_the_first_comes_after_an_interval() -> None:
    assert Course.begin(Healthcheck(("true",), interval_s=3), 5).due_s == 8


def test_services_are_asked_until_the_end() -> None:
    asked: list[str] = []
    answers = {"a": 0, "b": 1}

    def run(service: str, words: tuple[str, ...], timeout_s: float) -> int:
        asked.append(service)
        if service == "c":
            raise UsageError("there is no such command")
        return answers[service]

    checks = Checks(run)
    for service in ("a", "b", "c"):
        checks.begin(service, Healthcheck(("true",), interval_s=0.01, timeout_s=1, retries=2))
    until(lambda: [checks.state(one) for one in "abcd"] == ["healthy", "unhealthy", "unhealthy", None])
    answers["b"] = 0
    until(lambda: checks.state("b") == "healthy")
    checks.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("health of")]


def test_what_is_known_of_one_that_is_started_again_is_forgotten() -> None:
    """Also by a check that was under way, and its next comes when that of a new one would."""
    answers, asked = [0, 0], threading.Event()
    go_on = threading.Event()

    def run(service: str, words: tuple[str, ...], timeout_s: float) -> int:
        if len(answers) == 1:
            asked.set()
            assert go_on.wait(10)
        return answers.pop() if answers else 1

    checks = Checks(run)
    checks.begin("a", Healthcheck(("true",), interval_s=60, timeout_s=1, start_period_s=60, start_interval_s=0.01))
    until(lambda: checks.state("a") == "healthy")
    checks.begin_again("a")
    checks.begin_again("unchecked")
    assert checks.state("a") == "starting" and checks.state("unchecked") is None
    assert asked.wait(10)
    checks.begin_again("a")
    go_on.set()
    checks.close()
    assert checks.state("a") == "starting"
