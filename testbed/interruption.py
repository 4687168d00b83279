"""Raises one exception for Ctrl-C and SIGTERM, and holds signals back while a run cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Signal that someone wants the run to end. It is no Exception: nothing that handles failures may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


class _Deferral:
    """How deep we are in ``defer_signals``, and the signal that came meanwhile."""

    depth = 0
    pending: int | None = None


def _raise_once(number: int, frame: FrameType | None) -> None:
    """Raise at the first signal; from then on the undoing runs, which a second one must not cut short."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    if _Deferral.depth:
        _Deferral.pending = number
    else:
        raise Interrupted(number)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Within, an interruption waits for the end: for short stretches that start something and then note it. No other
    thread than the main one is ever interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Deferral.depth += 1
    try:
        yield
    finally:
        _Deferral.depth -= 1
        if _Deferral.depth == 0 and _Deferral.pending is not None:
            pending, _Deferral.pending = _Deferral.pending, None
            raise Interrupted(pending)


class Undo(ExitStack):
    """A stack that is undone to its end: an interruption meanwhile, also of a run that has ended well, waits for it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None:
        with defer_signals():
            return super().__exit__(kind, error, traceback)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within, the first SIGINT, SIGTERM or SIGHUP raises Interrupted and later ones are ignored.

    To be used in the main thread; the previous handlers come back at the end.
    """
    before = {number: signal.signal(number, _raise_once) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
