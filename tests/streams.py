"""Run all tests in streams side by side, each a pytest of its own, so that one's waiting is another's time.

    python -m tests.streams [--coverage] [PYTEST'S ARGUMENTS]

The first stream has what takes long whatever else runs: the emulated machine, which has a clock of its own, and what is
made of package sources or measures whole runs. Guests are booted one after the other, in a stream of their own: more
than two emulated ones at once would take both processors of a small host, and each other's time. The third has all the
rest. A stream that is through helps those after it, from their ends, module by module (tests/turns.py), so that all end
at about the same time, whichever took longest. The rest's output is shown as it comes, and that of the others after it.
With ``--coverage`` it is measured how much of the code the rest runs; nobody helps with it, and it takes half as long
again. Exits with 0 when all streams pass.

Each has a mount namespace of its own, in which `/` is shared as systemd shares it, whatever the host does: what a test
mounts and unmounts by mistake is seen there (tests/conftest.py), and not by the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from runtime import planners
from tests.turns import GUESTS, LONG, REST

# Each helps with those after it.
STREAMS = (LONG, GUESTS, REST)
_COVERAGE = "--coverage"
_SHARED = ("unshare", "--mount", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh")
# pytest's own: with a selection, a stream may have none of the tests.
_PASSED, _NO_TESTS = 0, 5


def make_command(stream: str, arguments: Sequence[str], turns: Path) -> tuple[str, ...]:
    """Return what a stream executes for these arguments of ours; in the directory ``turns`` is who does what."""
    namespace = _SHARED if os.geteuid() == 0 else ()
    measured = _COVERAGE in arguments
    after = STREAMS[STREAMS.index(stream) + 1 :]
    helped = [other for other in after if not (measured and other == REST)]
    return (
        *(*namespace, sys.executable, "-m", "pytest"),
        *(one for one in arguments if one != _COVERAGE),
        # As one word each: pytest would look for its configuration beside a second.
        *("-p", "tests.turns", f"--turns={turns}", *(f"--stream={name}" for name in (stream, *helped))),
        *(("--cov", "--cov-report=") if measured and stream == REST else ()),
    )


def run_stream(command: Sequence[str], output: BinaryIO | None) -> int:
    """Run a stream with what it prints to ``output``, or to ours; the exit status."""
    return subprocess.run(command, stdout=output, stderr=output and subprocess.STDOUT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the streams; the exit status of the first that failed."""
    began_s = time.monotonic()
    # Where nothing compiled is kept, each pytest takes seconds to rewrite all assertions anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with ExitStack() as undo:
        turns = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        kept = {name: undo.enter_context(tempfile.TemporaryFile()) for name in STREAMS if name != REST}
        threads = undo.enter_context(ThreadPoolExecutor(len(STREAMS)))
        running = {
            name: threads.submit(run_stream, make_command(name, arguments, turns), kept.get(name)) for name in STREAMS
        }
        statuses = [running[REST].result()]
        for name, output in kept.items():
            statuses.append(running[name].result())
            print(f"Meanwhile, {name}:", flush=True)
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    end_planners()
    if _COVERAGE in arguments:
        print_coverage()
    minutes, seconds = divmod(round(time.monotonic() - began_s), 60)
    print(f"all streams took {minutes} min {seconds} s", flush=True)
    return verdict(*statuses)


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
    print(f"statements that {REST} ran: {said} (.venv/bin/coverage report)", flush=True)


def verdict(*statuses: int) -> int:
    """What the streams come to together: a failure, else passed, else that there were no tests."""
    failed = [status for status in statuses if status not in (_PASSED, _NO_TESTS)]
    return failed[0] if failed else min(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
