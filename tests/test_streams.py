"""Streams of tests fail when one fails, and pass when one has nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.streams import STREAMS, make_command, run_stream, verdict
from tests.turns import GUESTS, LONG, REST, stream_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((5, 2), 2)]
)
def test_one_failure_is_enough(statuses: tuple[int, int], status: int) -> None:
    assert verdict(*statuses) == status


@pytest.mark.parametrize(
    ("markers", "stream"),
    [
        ((), REST),
        (("root",), REST),
        (("vm", "root"), GUESTS),
        (("vm", "network"), GUESTS),
        (("network",), LONG),
        (("vm", "machine"), LONG),
        (("machine", "network"), LONG),
    ],
)
def test_what_boots_guests_is_not_with_what_has_a_clock_of_its_own(markers: tuple[str, ...], stream: str) -> None:
    assert stream_of(markers) == stream


def test_all_streams_have_the_selection_and_help_with_what_takes_turns() -> None:
    helped = {LONG: [GUESTS, REST], GUESTS: [REST], REST: []}
    for name in STREAMS:
        wanted = ["--durations=10", "-k", "lab", "-p", "tests.turns", "--turns=/turns"]
        wanted += [f"--stream={one}" for one in (name, *helped[name])]
        assert list(make_command(name, ["--durations=10", "-k", "lab"], Path("/turns"))[-len(wanted) :]) == wanted


def test_coverage_is_measured_when_it_is_asked_for_and_all_of_it_in_one_process() -> None:
    commands = {name: make_command(name, ["--coverage"], Path("/turns")) for name in STREAMS}
    assert [name for name, command in commands.items() if "--cov" in command] == [REST]
    assert [name for name, command in commands.items() if f"--stream={REST}" in command] == [REST]
    assert not any("--coverage" in command for command in commands.values())
    assert not any("--cov" in make_command(name, [], Path("/turns")) for name in STREAMS)


def test_what_a_stream_prints_is_kept() -> None:
    with tempfile.TemporaryFile() as output:
        assert run_stream(("sh", "-c", "echo printed; echo said >&2; exit 3"), output) == 3
        output.seek(0)
        assert output.read() == b"printed\nsaid\n"


def test_the_rest_has_the_configuration_of_this_checkout(tmp_path: Path) -> None:
    command = make_command(REST, ["--collect-only", "-q", str(Path(__file__))], tmp_path)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tests/test_streams.py::test_the_rest_has_the_configuration_of_this_checkout" in done.stdout.splitlines()


MODULE = """
from pathlib import Path
import pytest
def note(what):
    with open({log!r}, "a") as log: log.write("{name}" + what + "\\n")
@pytest.fixture(scope="module")
def made():
    yield
    note(" torn down")
@pytest.mark.parametrize("number", range(2))
def test_it(number, made):
    note("")
    assert {name!r} != "y/test_c.py"
@pytest.mark.vm
def test_guest():
    note(" booted")
"""


def test_what_several_have_in_common_each_module_is_run_by_one_of_them(tmp_path: Path) -> None:
    """Its own first, then others' from the end; what somebody has come to is left to them, and nobody misses the
    failure."""
    turns, tests = tmp_path / "turns", tmp_path / "tests"
    turns.mkdir()
    names = ("x/test_a.py", "y/test_b.py", "y/test_c.py", "z/test_d.py")
    log = tmp_path / "log"
    for name in names:
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        (tests / name).write_text(MODULE.format(log=str(log), name=name))

    def claim(stream: str, name: str) -> Path:
        return turns / f"{stream}: {tests / name}".replace("/", "%")

    def run(*streams: str) -> tuple[int, list[str]]:
        log.write_text("")
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)
        own = ("-p", "tests.turns", f"--turns={turns}", "--rootdir", tests, "--confcutdir", tests)
        chosen = [f"--stream={stream}" for stream in streams]
        done = subprocess.run([*command, *own, *chosen, tests], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "error" not in done.stdout.splitlines()[-1], done.stdout
        return done.returncode, log.read_text().splitlines()

    def of(name: str) -> list[str]:
        return [name, name, f"{name} torn down"]

    claim(REST, names[1]).touch()
    claim(REST, names[3]).touch()
    booted = [f"{name} booted" for name in names]
    status, did = run(GUESTS, REST)
    assert (status, did) == (1, [*booted, *of(names[2]), *of(names[0])])
    claim(REST, names[2]).unlink()
    claim(REST, names[3]).unlink()
    assert run(REST, GUESTS) == (1, [*of(names[2]), *of(names[3])])
    assert run(LONG, REST, GUESTS) == (0, [])
    assert {*turns.iterdir()} == {claim(stream, name) for stream in (REST, GUESTS) for name in names}
