"""The task that checks this checkout: lint, types and all tests."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from invoke import Context, Result, task
from invoke.exceptions import Exit

from reports.commands.options import ROOT
from runtime.errors import UsageError

_C_FILES = (
    "runtime/launcher/*.c runtime/launcher/client/*.[ch] runtime/launcher/executor/*.[ch]"
    " testbed/ladder/program/*.c testbed/load/generator/*.[ch] testbed/neighbours/program/*.[ch]"
    " testbed/probes/program/*.[ch] testbed/sampler/*.c"
    " benchmarks/reference/*.[ch] tests/runtime/builder/*.c tests/runtime/launcher/*.c tests/testbed/load/*.c"
)
LINT = (
    "ruff check .",
    "ruff format --check .",
    f"clang-format --dry-run --Werror {_C_FILES}",
    "codespell",
    "mypy",
    "shellcheck invoke .ci/run scenarios/*/*/www/cgi-bin/run testbed/substitutes/images/*/*.sh"
    " testbed/substitutes/shared/php/*",
    "python -m runtime.launcher.build --analyze",
    "python -m testbed.sampler.build --analyze",
    "python -m testbed.load.build --analyze",
    "python -m testbed.neighbours.build --analyze",
    "python -m testbed.ladder.build --analyze",
    "python -m testbed.probes.build --analyze",
)

# Checks are independent of each other, and mypy takes as long as all the others.
_LINT_AT_ONCE = 2


def _run_unseen(context: Context, check: str) -> Result:
    """Run a check beside others: what it prints is in the result."""
    return context.run(check, warn=True, pty=False, hide=True, in_stream=False)


def checks(select: str, only: str, coverage: bool = False) -> tuple[str, ...]:
    """The command lines of a test run. Raises UsageError for a part that there is not."""
    tests = "python -m tests.streams --durations=10" + " --coverage" * coverage + (f" -k '{select}'" if select else "")
    parts = {"": (*LINT, tests), "lint": LINT, "tests": (tests,)}
    if only not in parts:
        raise UsageError(f"test --only {only}: there is no such part", "lint or tests")
    return parts[only]


@task(
    help={
        "select": "only tests whose names match (pytest -k)",
        "only": "one part: lint (with types) or tests",
        "coverage": "measure how much of the code runs without guests, which takes half as long again",
    }
)
def test(context: Context, select: str = "", only: str = "", coverage: bool = False) -> None:
    """Lint, types and all tests."""
    try:
        chosen = checks(select, only, coverage)
    except UsageError as error:
        raise Exit(f"error: {error}", code=error.exit_code) from error
    with context.cd(str(ROOT)), context.prefix(f"PATH='{Path(sys.executable).parent}':\"$PATH\""):
        lint = [check for check in chosen if check in LINT]
        with ThreadPoolExecutor(_LINT_AT_ONCE) as threads:
            for check, done in zip(lint, threads.map(partial(_run_unseen, context), lint), strict=True):
                print(f"$ {check}\n{done.stdout}{done.stderr}", end="", flush=True)
                if not done.ok:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise Exit(f"failed: {check}", code=1)
        for check in chosen[len(lint) :]:
            print(f"$ {check}", flush=True)
            if not context.run(check, warn=True, pty=False).ok:
                raise Exit(f"failed: {check}", code=1)
