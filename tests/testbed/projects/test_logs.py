"""What services write, read while they write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.lease import lease
from runtime.output import BoundedLog
from testbed.projects.logs import _Reader, follow_logs, read_logs
from testbed.projects.record import Project, make_logs


def test_lines_come_whole(tmp_path: Path) -> None:
    log, reader = tmp_path / "log", _Reader(tmp_path / "log")
    assert reader.read() == []
    log.write_bytes(b"one\ntw")
    assert reader.read() == ["one"]
    with log.open("ab") as stream:
        stream.write(b"o\nthr\xff")
    assert reader.read() == ["two"]
    assert reader.read(to_end=True) == ["thr\ufffd"]


def test_a_log_that_lost_its_middle_is_read_on(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", head=100, tail=100)
    reader = _Reader(log.path)
    log.write(b"begin\n" * 40)
    assert len(reader.read()) == 40
    log.write(b"later\n" * 40)
    assert log.dropped
    assert reader.read() == []
    log.write(b"now\n")
    assert reader.read() == ["now"]


@pytest.mark.root
def test_following_ends_with_the_project(tmp_path: Path, run_name: str) -> None:
    written: list[tuple[str, str]] = []

    def write(name: str, line: str) -> None:
        written.append((name, line))
        if line == "b":
            held.__exit__(None, None, None)

    held = lease(f"up-{run_name}", tmp_path / "run")
    directory = held.__enter__()
    project = Project(run_name, directory, None, True)
    (make_logs(directory) / "web.log").write_text("a\nb\n")
    follow_logs(project, ["web"], write, tail=1, root=tmp_path / "run")
    assert written == [("web", "b")]


def test_the_last_lines(tmp_path: Path) -> None:
    project = Project("app", tmp_path, None, True)
    (make_logs(tmp_path) / "web.log").write_text("a\nb\nc")
    for tail, expected in ((None, ["a", "b", "c"]), (2, ["b", "c"]), (0, []), (9, ["a", "b", "c"])):
        written: list[tuple[str, str]] = []
        read_logs(project, ["web"], lambda *line: written.append(line), tail=tail)  # noqa: B023
        assert [line for _, line in written] == expected
