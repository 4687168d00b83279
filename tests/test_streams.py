"""Streams of tests fail when one fails, and pass when one has nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from threading import Event

import pytest
from _pytest.mark.expression import Expression

from tests.streams import STREAMS, make_commands, make_helpers, run_stream, verdict

GUESTS, REST = "guests", "the rest"
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((5, 2), 2)]
)
def test_one_failure_is_enough(statuses: tuple[int, int], status: int) -> None:
    assert verdict(*statuses) == status


def test_every_test_is_in_one_stream() -> None:
    for marks in product((False, True), repeat=3):
        marked = {name for name, is_marked in zip(("vm", "machine", "network"), marks, strict=True) if is_marked}

        def has(name: str, /, **_: str | int | bool | None) -> bool:
            return name in marked  # noqa: B023 # it is asked at once

        chosen = [name for name, expression in STREAMS.items() if Expression.compile(expression).evaluate(has)]
        assert len(chosen) == 1, (marked, chosen)


def test_all_streams_have_the_selection() -> None:
    for name, command in make_commands(["--durations=10", "-k", "lab"], Path("/turns")).items():
        shared = ("-p", "tests.turns", f"--turns=/turns/{name}") if name in (GUESTS, REST) else ()
        wanted = ("--durations=10", "-k", "lab", "-m", STREAMS[name], *shared)
        assert command[-len(wanted) :] == wanted


def test_coverage_is_measured_when_it_is_asked_for_and_all_of_it_in_one_process() -> None:
    commands = make_commands(["--coverage"], Path("/turns"))
    assert [name for name, command in commands.items() if "--cov" in command] == [REST]
    assert not any("--coverage" in command for command in commands.values())
    assert list(make_helpers(commands)) == [GUESTS]
    assert not any("--cov" in command for command in make_commands([], Path("/turns")).values())


def test_who_helps_begins_at_the_end_of_the_same() -> None:
    commands = make_commands(["-k", "lab"], Path("/turns"))
    assert make_helpers(commands) == {name: (*commands[name], "--from-the-end") for name in (GUESTS, REST)}


@pytest.mark.parametrize(
    ("status", "over", "did"),
    [
        (0, (), ["own", "of guests", "of the rest"]),
        (1, (), ["own", "of guests", "of the rest"]),
        (5, (GUESTS,), ["own", "of the rest"]),
        (2, (), ["own"]),
        (0, (GUESTS, REST), ["own"]),
    ],
)
def test_a_stream_helps_unless_it_was_interrupted_or_there_is_nothing_left(
    status: int, over: tuple[str, ...], did: list[str]
) -> None:
    is_over = {name: Event() for name in ("own", GUESTS, REST)}
    for name in over:
        is_over[name].set()
    with tempfile.TemporaryFile() as output:
        helpers = {name: ("sh", "-c", f"echo of {name}; exit 3") for name in (GUESTS, REST)}
        statuses = run_stream("own", ("sh", "-c", f"echo own; exit {status}"), helpers, is_over, output)
        assert statuses == [status, *(3 for _ in did[1:])]
        assert is_over["own"].is_set()
        output.seek(0)
        assert output.read().decode().splitlines() == did


def test_a_stream_does_not_help_itself() -> None:
    is_over = {GUESTS: Event()}
    with tempfile.TemporaryFile() as output:
        assert run_stream(GUESTS, ("true",), {GUESTS: ("false",)}, is_over, output) == [0]


def test_the_rest_has_the_configuration_of_this_checkout(tmp_path: Path) -> None:
    command = [*make_commands(["--collect-only", "-q", str(Path(__file__))], tmp_path)[REST], "--from-the-end"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tests/test_streams.py::test_the_rest_has_the_configuration_of_this_checkout" in done.stdout.splitlines()


MODULE = """
from pathlib import Path
import pytest
@pytest.fixture(scope="module")
def made():
    yield
    with open({log!r}, "a") as log: log.write("{name} torn down\\n")
@pytest.mark.parametrize("number", range(2))
def test_it(number, made):
    with open({log!r}, "a") as log: log.write("{name}\\n")
    assert {name!r} != "test_c.py"
"""


def test_what_several_have_in_common_each_module_is_run_by_one_of_them(tmp_path: Path) -> None:
    """The first has begun with what another would do last, when that comes; nobody misses the failure."""
    turns, tests = tmp_path / "turns", tmp_path / "tests"
    turns.mkdir()
    tests.mkdir()
    names = ("test_a.py", "test_b.py", "test_c.py")

    def run(*options: str) -> tuple[int, list[str]]:
        log = tmp_path / "log"
        log.write_text("")
        for name in names:
            (tests / name).write_text(MODULE.format(log=str(log), name=name))
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)
        own = ("-p", "tests.turns", f"--turns={turns}", "--rootdir", tests, "--confcutdir", tests)
        done = subprocess.run([*command, *own, *options, tests], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, log.read_text().splitlines()

    def of(name: str) -> list[str]:
        return [name, name, f"{name} torn down"]

    (turns / str(tests / "test_b.py").replace("/", "%")).touch()
    status, did = run("--from-the-end")
    assert (status, did) == (1, [*of("test_c.py"), *of("test_a.py")])
    (turns / str(tests / "test_c.py").replace("/", "%")).unlink()
    assert run() == (1, of("test_c.py"))
    assert run() == (0, [])
    assert {path.name.rpartition("%")[2] for path in turns.iterdir()} == {*names}
