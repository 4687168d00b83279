"""Run all tests in streams side by side, each a pytest of its own, so that one's waiting is another's time.

    python -m tests.streams [--coverage] [PYTEST'S ARGUMENTS]

Guests are booted one after the other, in a stream of their own: more than two emulated ones at once would take both
processors of a small host, and each other's time. The second stream has what takes long whatever else runs: the
emulated machine, which has a clock of its own, and what is made of package sources or measures whole runs. The third
has all the rest. A stream that is through helps the guests and the rest, from their ends, module by module
(tests/turns.py), so that all end at about the same time, whichever took longest. The rest's output is shown as it
comes, and that of the others after it. With ``--coverage`` it is measured how much of the code the rest runs; nobody
helps with it, and it takes half as long again. Exits with 0 when all streams pass.

Each has a mount namespace of its own, in which `/` is shared as systemd shares it, whatever the host does: what a test
mounts and unmounts by mistake is seen there (tests/conftest.py), and not by the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO

from runtime import planners

# Which tests each stream has, by their markers (pyproject.toml); each test is in one of them.
_GUESTS = "guests"
_REST = "the rest"
STREAMS: Mapping[str, str] = {
    _GUESTS: "vm and not machine",
    "the emulated machine, package sources and runs": "machine or (network and not vm)",
    _REST: "not vm and not machine and not network",
}
# With which others help, in this order.
_HELPED = (_GUESTS, _REST)
_COVERAGE = "--coverage"
_SHARED = ("unshare", "--mount", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh")
# pytest's own: with a selection, a stream may have none of the tests.
_PASSED, _FAILED, _NO_TESTS = 0, 1, 5


def make_commands(arguments: Sequence[str], turns: Path) -> dict[str, tuple[str, ...]]:
    """Return what each stream executes for these arguments of ours, by its name; beneath the directory ``turns`` it is
    kept who does what of those that are helped."""
    namespace = _SHARED if os.geteuid() == 0 else ()
    command = (*namespace, sys.executable, "-m", "pytest", *(one for one in arguments if one != _COVERAGE))
    commands = {name: (*command, "-m", marked) for name, marked in STREAMS.items()}
    for name in _HELPED:
        # As one word: pytest would look for its configuration beside a second.
        commands[name] += ("-p", "tests.turns", f"--turns={turns / name}")
    if _COVERAGE in arguments:
        commands[_REST] = (*command, "-m", STREAMS[_REST], "--cov", "--cov-report=")
    return commands


def make_helpers(commands: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return what a stream executes after its own tests to help with another's, by the other's name."""
    return {name: (*commands[name], "--from-the-end") for name in _HELPED if "tests.turns" in commands[name]}


def run_stream(
    name: str,
    own: tuple[str, ...],
    helpers: Mapping[str, tuple[str, ...]],
    is_over: Mapping[str, Event],
    output: BinaryIO,
) -> list[int]:
    """Run a stream's own command, and then a helper of each other stream whose own has not ended, unless the first was
    interrupted or could not be run; the exit statuses."""
    statuses = [_run(own, output)]
    is_over[name].set()
    for other, helper in helpers.items():
        if statuses[0] in (_PASSED, _FAILED, _NO_TESTS) and not is_over[other].is_set():
            statuses.append(_run(helper, output))
    return statuses


def _run(command: tuple[str, ...], output: BinaryIO) -> int:
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the streams; the exit status of the first that failed."""
    began_s = time.monotonic()
    # Where nothing compiled is kept, each pytest takes seconds to rewrite all assertions anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with ExitStack() as undo:
        turns = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        commands = make_commands(arguments, turns)
        helpers, is_over = make_helpers(commands), {name: Event() for name in commands}
        for name in helpers:
            (turns / name).mkdir()
        # What is not shown as it comes is kept.
        kept = {name: undo.enter_context(tempfile.TemporaryFile()) for name in commands if name != _REST}
        threads = undo.enter_context(ThreadPoolExecutor(len(commands)))
        streams = {
            name: threads.submit(run_stream, name, command, helpers, is_over, kept.get(name, sys.stdout.buffer))
            for name, command in commands.items()
        }
        statuses = streams.pop(_REST).result()
        for name, stream in streams.items():
            statuses += stream.result()
            print(f"Meanwhile, {name}:", flush=True)
            kept[name].seek(0)
            sys.stdout.buffer.write(kept[name].read())
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
    print(f"statements that {_REST} ran: {said} (.venv/bin/coverage report)", flush=True)


def verdict(*statuses: int) -> int:
    """What the streams come to together: a failure, else passed, else that there were no tests."""
    failed = [status for status in statuses if status not in (_PASSED, _NO_TESTS)]
    return failed[0] if failed else min(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
