"""The log and the pid file: what engines read, in directories that may be everybody's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.runtime.command_line import Runtime

pytestmark = pytest.mark.root


def test_lines_of_both_formats(oci: Runtime, tmp_path: Path) -> None:
    config = oci.config()
    config["argz\x1b[31m"] = 1
    oci.configure(config)
    oci("create", "a")
    for form in ("json", "text"):
        flags = (f"--log={tmp_path / form}", f"--log-format={form}")
        oci(*flags, "--explain", "create", "b")
        assert oci(*flags, "delete", "a", check=False).returncode == 1
    first, second = map(json.loads, (tmp_path / "json").read_text().splitlines())
    assert (first["level"], second["level"]) == ("warning", "error")
    assert "argz" in first["msg"] and first["msg"].isprintable()
    assert second["msg"] == "delete container a: it is created\n  kill it first, or use --force"
    line = (tmp_path / "text").read_text().splitlines()[1]
    assert 'level=error msg="delete container a: it is created\\n  kill it first, or use --force"' in line
    oci("delete", "--force", "a")


def test_a_pid_file_appears_whole_and_replaces_a_link(oci: Runtime, tmp_path: Path) -> None:
    (tmp_path / "pid").symlink_to(tmp_path / "target")
    oci("create", "--pid-file", str(tmp_path / "pid"), "a")
    assert (tmp_path / "pid").read_text() == str(oci.state("a")["pid"]) and not (tmp_path / "pid").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["layers", "pid"]
    oci("delete", "--force", "a")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "directory", tmp_path / "none" / "pid"):
        done = oci("create", "--pid-file", str(path), "a", check=False)
        assert done.returncode == 1 and f"write the pid file {path}" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["directory", "layers", "pid"]


@pytest.mark.parametrize("command", [("state", "a"), ("run", "b"), ("list",), ("create", "b"), ("delete", "a")])
def test_a_log_that_cannot_be_opened_is_an_error(oci: Runtime, command: tuple[str, ...]) -> None:
    """A link is not followed, and nobody waits for a FIFO's reader."""
    oci("create", "a")
    (oci.bundle / "link").symlink_to(oci.bundle / "target")
    os.mkfifo(oci.bundle / "fifo")
    for path in ("/none/log", *(str(oci.bundle / name) for name in ("link", "fifo", "."))):
        done = oci(f"--log={path}", *command, check=False)
        assert done.returncode == 1 and f"open the log {path}: " in done.stderr
        assert ("it is a link" in done.stderr) == path.endswith("link")
    assert not (oci.bundle / "target").exists() and oci.state("a")["status"] == "created"
    assert oci(f"--log={oci.bundle / 'log'}", "list").returncode == 0
    oci("delete", "--force", "a")


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
    assert oci("run", "a").stderr == done.stderr
    log = oci.bundle / "log"
    done = oci(f"--log={log}", "--log-format=json", "run", "a")
    assert done.stderr == "" and [json.loads(line)["level"] for line in log.read_text().splitlines()] == ["warning"] * 2
