"""Run all tests in two streams side by side, each a pytest of its own: those with guests, which mostly wait for one
processor's work, and the rest.

    python -m tests.streams [PYTEST'S ARGUMENTS]

The output of the rest is shown as it comes, that of the tests with guests after it, and then how much of the code the
rest has run. That is not measured of the tests with guests, whose clocks it would disturb, nor of a selection. Exits
with 0 when both pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from runtime import planners

_GUESTS = "vm or network"
# pytest's own: with a selection, one stream may have none of the tests.
_PASSED, _NO_TESTS = 0, 5


def main(arguments: list[str]) -> int:
    """Run both streams; the exit status of the first that failed."""
    command = [sys.executable, "-m", "pytest", *arguments]
    coverage = [] if "-k" in arguments else ["--cov", "--cov-report="]
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen([*command, "-m", _GUESTS], stdout=output, stderr=subprocess.STDOUT) as guests:
            rest = subprocess.run([*command, "-m", f"not ({_GUESTS})", *coverage], check=False).returncode
            print("The tests with guests, meanwhile:", flush=True)
        output.seek(0)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    end_planners()
    if coverage:
        print_coverage()
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
