"""How every benchmark ends, and how it runs a program that it measures.

An error that is meant for a person is its message, as the tasks print it, and an interrupt is none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from runtime.errors import TestbedError


def perform(main: Callable[[], None]) -> None:
    """Call ``main``; a TestbedError ends the process with its message on standard error and its exit code."""
    try:
        main()
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would kill the interpreter while it ends
        sys.exit(130)


class Ran(Struct, frozen=True):
    """What a program printed, the seconds that it took, and its seconds of processors."""

    said: str
    took_s: float
    cpu_s: float


def run(command: Sequence[str | Path]) -> Ran:
    """Run a program to its end. Raises TestbedError with the end of what it printed when it fails."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise TestbedError(f"{command[0]}: exit status {process.returncode}", said[-500:])
    return Ran(said, time.monotonic() - began, usage.ru_utime + usage.ru_stime)
