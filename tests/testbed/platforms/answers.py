"""What an instance answers, asked until it does: when its first process runs, nobody listens there yet."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def _asked_until(ask: Callable[[], Answer], timeout_s: float) -> Answer:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def fetch(url: str, timeout_s: float) -> str:
    """The page at ``url``. Raises OSError, the last there was, when there is none within ``timeout_s``."""

    def ask() -> str:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    return _asked_until(ask, timeout_s)


def greeting(address: str, port: int, timeout_s: float) -> bytes:
    """What is said to whoever connects, without being asked; errors as ``fetch``'s."""

    def ask() -> bytes:
        with socket.create_connection((address, port), timeout=5) as connection:
            return connection.recv(100)

    return _asked_until(ask, timeout_s)


def knock(address: str, port: int, timeout_s: float) -> None:
    """Connect, and say nothing; errors as ``fetch``'s."""
    _asked_until(lambda: socket.create_connection((address, port), timeout=5).close(), timeout_s)
