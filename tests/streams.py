"""Run all tests in two streams side by side, each a pytest of its own: those with guests, which mostly wait for one
processor's work, and the rest.

    python -m tests.streams [--coverage] [PYTEST'S ARGUMENTS]

Guests are booted one after the other: two emulated ones at once would take both processors of a small host, and each
other's time. The output of the rest is shown as it comes, and that of the tests with guests after it. With
``--coverage`` it is measured how much of the code the rest runs, which then takes half as long again; not of the
tests with guests, whose clocks that would disturb. Exits with 0 when both pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime import planners

_GUESTS = "vm"
_COVERAGE = "--coverage"
# pytest's own: with a selection, one stream may have none of the tests.
_PASSED, _NO_TESTS = 0, 5


class Commands(Struct, frozen=True):
    """The command lines of both streams."""

    guests: tuple[str, ...]
    rest: tuple[str, ...]
    has_coverage: bool


def make_commands(arguments: Sequence[str]) -> Commands:
    """Return what is executed for these arguments of ours."""
    has_coverage = _COVERAGE in arguments
    command = (sys.executable, "-m", "pytest", *(one for one in arguments if one != _COVERAGE))
    coverage = ("--cov", "--cov-report=") if has_coverage else ()
    return Commands((*command, "-m", _GUESTS), (*command, "-m", f"not {_GUESTS}", *coverage), has_coverage)


def main(arguments: Sequence[str]) -> int:
    """Run both streams; the exit status of the first that failed."""
    commands, began_s = make_commands(arguments), time.monotonic()
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(commands.guests, stdout=output, stderr=subprocess.STDOUT) as guests:
            rest = subprocess.run(commands.rest, check=False).returncode
            print("The tests with guests, meanwhile:", flush=True)
        output.seek(0)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    end_planners()
    if commands.has_coverage:
        print_coverage()
    minutes, seconds = divmod(round(time.monotonic() - began_s), 60)
    print(f"both streams took {minutes} min {seconds} s", flush=True)
    return verdict(rest, guests.returncode)


def end_planners() -> None:
    """End the planners of this checkout that the tests' commands have started."""
    ours = str(Path(__file__).resolve().parent.parent / "runtime" / "oci")
    for resident in planners.residents(os.environ):
        with suppress(FileNotFoundError):
            if ours in Path(f"/proc/{resident.pid}/cmdline").read_text():
                planners.end(resident)


def print_coverage() -> None:
    """Print how many of the statements ran. ``python -m coverage report`` then says which did not, by file."""
    report = [sys.executable, "-m", "coverage", "report", "--format=total"]
    total = subprocess.run(report, check=False, capture_output=True, text=True)
    said = f"{total.stdout.strip()} %" if total.returncode == 0 else total.stdout.strip() or total.stderr.strip()
    print(f"statements that the tests without guests ran: {said} (.venv/bin/coverage report)", flush=True)


def verdict(*statuses: int) -> int:
    """What the streams come to together: a failure, else passed, else that there were no tests."""
    failed = [status for status in statuses if status not in (_PASSED, _NO_TESTS)]
    return failed[0] if failed else min(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
