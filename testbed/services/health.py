"""Asks services whether they are healthy, by the command that their file gives, as often as it says.

When a check is due and what its outcomes make of a service is decided here without doing anything (``Course``);
``Checks`` does it, in one thread a service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import TestbedError
from testbed.compose.model import Healthcheck

State = Literal["starting", "healthy", "unhealthy"]
# Runs a command in a service and returns its exit status, None when it took longer than so many seconds.
Run = Callable[[str, tuple[str, ...], float], int | None]
_END_S = 5.0


class Course(Struct, frozen=True):
    """How the checks of a service have gone: its ``state``, failures in a row that count, and when the next one is due
    (``due_s``; it was started at ``began_s``, by the same clock)."""

    check: Healthcheck
    began_s: float
    due_s: float
    state: State = "starting"
    failures: int = 0

    @classmethod
    def begin(cls, check: Healthcheck, now_s: float) -> Course:
        """Return the course of a service that has just been started."""
        course = cls(check, now_s, now_s)
        return replace(course, due_s=now_s + course._interval_s(now_s))

    def note(self, status: int | None, now_s: float) -> Course:
        """Return the course after a check that ended now (Dockerfile reference, HEALTHCHECK)."""
        if status == 0:
            after = replace(self, state="healthy", failures=0)
        elif self.state == "starting" and self._is_beginning(now_s):
            after = self
        else:
            failures = self.failures + 1
            after = replace(
                self, failures=failures, state="unhealthy" if failures >= self.check.retries else self.state
            )
        return replace(after, due_s=now_s + after._interval_s(now_s))

    def _is_beginning(self, now_s: float) -> bool:
        return now_s - self.began_s < self.check.start_period_s

    def _interval_s(self, now_s: float) -> float:
        if self.state == "starting" and self._is_beginning(now_s):
            return self.check.start_interval_s
        return self.check.interval_s


class Checks:
    """The checks of services that run, each asked until ``close``."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._courses: dict[str, Course] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._threads: list[threading.Thread] = []

    def begin(self, service: str, check: Healthcheck) -> None:
        """Check a service from now on."""
        self._courses[service] = Course.begin(check, time.monotonic())
        thread = threading.Thread(target=self._ask, args=(service,), name=f"health of {service}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def begin_again(self, service: str) -> None:
        """Forget what is known of a service that has been started again; harmless for one that is not checked."""
        with self._changed:
            if course := self._courses.get(service):
                self._courses[service] = Course.begin(course.check, time.monotonic())
                self._changed.notify_all()

    def state(self, service: str) -> State | None:
        """Return what is known of a service; None of one that is not checked."""
        course = self._courses.get(service)
        return course.state if course else None

    def close(self) -> None:
        """Ask no more; a check that is under way has a few seconds to end."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_END_S)

    def _ask(self, service: str) -> None:
        while course := self._await_due(service):
            assert course.check.test is not None
            try:
                status = self._run(service, course.check.test, course.check.timeout_s)
            except (OSError, TestbedError):  # there is no such command, or the service has just ended
                status = None
            with self._changed:
                if self._courses[service] is course:  # else it was of the one before
                    self._courses[service] = course.note(status, time.monotonic())

    def _await_due(self, service: str) -> Course | None:
        """Return a service's course once its next check is due; None when no more are asked for."""
        with self._changed:
            while not self._ended:
                course = self._courses[service]
                left_s = course.due_s - time.monotonic()
                if left_s <= 0:
                    return course
                self._changed.wait(left_s)
        return None
