"""The first signal ends the run; the second does not end the undoing."""

from __future__ import annotations

import os
import signal

import pytest

from testbed.interruption import Interrupted, Undo, defer_signals, raise_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_exception_and_the_next_is_ignored(number: signal.Signals) -> None:
    undone = []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name), raise_on_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            undone.append(True)
    assert undone == [True]
    assert signal.getsignal(number) is before


def test_it_is_no_exception_that_failure_handling_catches() -> None:
    assert not issubclass(Interrupted, Exception)


def test_a_deferred_interruption_comes_at_the_end() -> None:
    noted = []
    with pytest.raises(Interrupted, match="SIGTERM"), raise_on_signals():
        with defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            noted.append("started")
        noted.append("never")
    assert noted == ["started"]


def test_one_within_another_waits_for_the_end_of_both() -> None:
    noted = []
    with pytest.raises(Interrupted, match="SIGTERM"), raise_on_signals(), defer_signals():
        with defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        noted.append("started")
    assert noted == ["started"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_interruption_waits_until_all_is_undone(fails: bool) -> None:
    """Of a run that ended by itself as of one that failed."""
    undone: list[str] = []
    with pytest.raises(Interrupted, match="SIGTERM"), raise_on_signals(), Undo() as undo:
        undo.callback(undone.append, "first")
        undo.callback(os.kill, os.getpid(), signal.SIGTERM)
        undo.callback(undone.append, "last")
        if fails:
            raise RuntimeError
    assert undone == ["last", "first"]


def test_without_a_signal_deferring_changes_nothing() -> None:
    with raise_on_signals(), defer_signals():
        pass
    with pytest.raises(Interrupted), raise_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
