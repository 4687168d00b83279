"""A peer's program: where it is, and which version it says it has. It is asked in bounded time and in bounded words,
for nobody vouches for what is called ``crun`` on somebody's PATH."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from runtime.errors import PrerequisiteError
from runtime.output import printable, shortened
from runtime.speed import scale

_ANSWER_S, _ANSWER_BYTES = 5.0, 1 << 16
# Of what is printed, the version is the first thing like 1.8.1, v0.3, 252 or 0.0~20221219.0 after a word.
_VERSION = re.compile(r"(?<![\w.])v?(\d{1,9}(?:\.\d{1,9}){1,4}[\w.+~-]{0,40}|\d{2,9})(?![\w.])")
UNKNOWN = "unknown version"


class Program(Struct, frozen=True):
    """A program that is looked for: its ``name`` on the PATH, the Debian ``package`` that has it (empty: none has), and
    the words that ask for its version."""

    name: str
    package: str = ""
    asks: tuple[str, ...] = ("--version",)

    @property
    def fix(self) -> str:
        """What to do where it is missing."""
        return f"install the package {self.package}" if self.package else f"no Debian package has {self.name}: see docs"


class Found(Struct, frozen=True):
    """A program that is there: its path, and its version; ``problem`` says why that is UNKNOWN, if it is."""

    path: str
    version: str
    problem: str = ""


def find(program: Program) -> Found:
    """Find a program on the PATH and ask for its version.

    Raises PrerequisiteError when it is not there, or broken: it cannot be executed, fails, or does not answer in time.
    One that answers without a version is used, and says so wherever it is named.
    """
    path = shutil.which(program.name)
    if path is None:
        raise PrerequisiteError(f"{program.name} is not on the PATH", program.fix)
    words = (path, *program.asks)
    question = " ".join([program.name, *program.asks])
    status, answer = ask(words, question)
    lines = [shortened(printable(line)) for line in answer.splitlines() if line.strip()]
    first = lines[0] if lines else "nothing"
    if status:
        raise PrerequisiteError(f"{question}: exit status {status}; it says: {lines[-1] if lines else first}", _REPAIR)
    version = parse_version(answer)
    return Found(path, version) if version else Found(path, UNKNOWN, f"{question} says: {first}")


_REPAIR = "reinstall it, or take what is broken off the PATH"


def parse_version(answer: str) -> str:
    """Return the version in a program's answer, whose first line has it; empty when there is none."""
    match = _VERSION.search(next((line for line in answer.splitlines() if line.strip()), ""))
    return match[1] if match else ""


def ask(words: Sequence[str], question: str) -> tuple[int, str]:
    """Return a command's exit status (128 + n for signal n) and the beginning of what it prints.

    Raises PrerequisiteError, which names the ``question``, when it cannot be executed or does not end in time.
    """
    timeout_s = scale(_ANSWER_S)
    try:
        asked = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise PrerequisiteError(f"{question}: {error.strerror}", _REPAIR) from error
    assert asked.stdout is not None
    try:
        answer = _read(asked.stdout.fileno(), time.monotonic() + timeout_s)
        if answer is not None and len(answer) > _ANSWER_BYTES:
            raise PrerequisiteError(f"{question}: its answer is longer than {_ANSWER_BYTES} bytes", _REPAIR)
        if answer is None:
            raise PrerequisiteError(f"{question}: no end of its answer within {timeout_s:g} s", _REPAIR)
        status = asked.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(f"{question}: it does not end within {timeout_s:g} s", _REPAIR) from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)  # it is not reaped yet, or nobody is left in its group
        asked.wait()
        asked.stdout.close()
    return status if status >= 0 else 128 - status, answer.decode(errors="replace")


def _read(descriptor: int, deadline_s: float) -> bytes | None:
    """Return what is written there until its end, or until it is too long; None when the end does not come in time."""
    answer = b""
    while len(answer) <= _ANSWER_BYTES:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            return None
        data = os.read(descriptor, 1 << 14)
        if not data:
            break
        answer += data
    return answer
