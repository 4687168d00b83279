"""The task ladder, end to end on a record: the matrix, JSON, the page, exit codes, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.ladder.model import FILE
from testbed.ladder.store import write_ladder
from tests.reports.commands.test_commands import run
from tests.reports.ladder.records import make_ladder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / make_ladder().id
    folder.mkdir()
    write_ladder(folder, replace(make_ladder(), outcomes=()))
    return folder


def test_a_run_is_shown_again(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("ladder", "--from", str(folder), "--html", str(page))
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert (
        "What each costs" in text and "docker-2013 9.45 ms" in text and "without paravirtual-2003: no Xen here" in text
    )
    assert page.read_bytes() == (folder / "ladder.html").read_bytes()
    again = run("ladder", "--from", folder.name, "--out", str(tmp_path), "--html", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rungs"] == list(make_ladder().rungs)
    assert page.read_bytes() == (folder / "ladder.html").read_bytes()


def test_what_leaks_turns_it_red(folder: Path) -> None:
    document = json.loads((folder / FILE).read_text())
    leak = {"rung": "jail-2000", "probe": "processes-memory-file", "verdict": "leaked", "intention": "forbidden"}
    (folder / FILE).write_text(json.dumps(document | {"outcomes": [leak]}))
    done = run("ladder", "--from", str(folder))
    assert done.returncode == 3, done.stderr
    assert "jail-2000: processes-memory-file leaked." in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rungs", "gaol"), "--rungs gaol: there is no such rung"),
        (("--platforms", "gaol"), "unknown platform gaol"),
        (("--seed", "x"), "--seed x: not a whole number"),
        (("--from", "nowhere"), "read nowhere"),
        (("--from", "x", "--quick"), "--from with --rungs, --platforms or --quick"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run("ladder", *words, "--out", str(tmp_path))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and said in done.stderr
    assert "Traceback" not in done.stderr and not any(tmp_path.iterdir())
