"""The log and the pid file: what engines read, in directories that may be everybody's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runtime.oci.log import open_log

from runtime.atomic import write_pid_file
from runtime.errors import UsageError
from tests.runtime.oci import Runtime


def test_lines_of_both_formats(tmp_path: Path) -> None:
    for form in ("json", "text"):
        log = open_log(str(tmp_path / form), form)
        log.write("warning", "one\x1b[31m")
        log.write("error", "two\n  a hint")
    first, second = map(json.loads, (tmp_path / "json").read_text().splitlines())
    assert (first["level"], first["msg"], second["msg"]) == ("warning", "one", "two\n  a hint")
    assert 'level=error msg="two\\n  a hint"' in (tmp_path / "text").read_text().splitlines()[1]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError, match="a link"):
        open_log(str(tmp_path / "log"), "text")
    assert not (tmp_path / "target").exists()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="open the log"):  # without waiting for a reader
        open_log(str(tmp_path / "fifo"), "text")


def test_a_pid_file_appears_whole_and_replaces_a_link(tmp_path: Path) -> None:
    (tmp_path / "pid").symlink_to(tmp_path / "target")
    write_pid_file(str(tmp_path / "pid"), 4711)
    assert (tmp_path / "pid").read_text() == "4711" and not (tmp_path / "pid").is_symlink()
    assert os.listdir(tmp_path) == ["pid"]
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "directory", tmp_path / "none" / "pid"):
        with pytest.raises(UsageError, match=f"write the pid file {path}"):
            write_pid_file(str(path), 1)
    assert sorted(os.listdir(tmp_path)) == ["directory", "pid"]


@pytest.mark.root
@pytest.mark.parametrize("command", [("state", "a"), ("run", "b"), ("list",), ("create", "b"), ("delete", "a")])
def test_a_log_that_cannot_be_opened_is_an_error(oci: Runtime, command: tuple[str, ...]) -> None:
    """Whoever serves the command, the launcher or the interpreter."""
    oci("run", "b")  # the next is the launcher's
    oci("create", "a")
    (oci.bundle / "link").symlink_to(oci.bundle / "target")
    for path in ("/none/log", str(oci.bundle / "link"), str(oci.bundle)):
        done = oci(f"--log={path}", *command, check=False)
        assert done.returncode == 1 and f"open the log {path}: " in done.stderr
    assert not (oci.bundle / "target").exists() and oci.state("a")["status"] == "created"
    assert oci(f"--log={oci.bundle / 'log'}", "list").returncode == 0
    oci("delete", "--force", "a")


@pytest.mark.root
def test_warnings_go_to_the_log_where_there_is_one(oci: Runtime) -> None:
    config = oci.config()
    config["process"]["argz"] = ["x"]
    config["process"]["capabilities"]["bounding"].append("CAP_NONSENSE")
    oci.configure(config)
    done = oci("run", "a")
    assert [line.split(": ", 1)[1] for line in done.stderr.splitlines()] == [
        f"{oci.bundle}/config.json: process.argz: unknown, and ignored",
        "process.capabilities: unknown or not ours to give, and left out: CAP_NONSENSE",
    ]
    assert oci("run", "a").stderr == done.stderr  # the launcher does not do it the second time
    log = oci.bundle / "log"
    done = oci(f"--log={log}", "--log-format=json", "run", "a")
    assert done.stderr == "" and [json.loads(line)["level"] for line in log.read_text().splitlines()] == ["warning"] * 2
