"""The tasks that deal with what is up, as a person sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.commands.project_table import describe_age, describe_project
from testbed.projects.record import Member, Project, Published, Record
from tests.owned import no_dead_run_left

ROOT = Path(__file__).resolve().parents[3]

MEMBERS = (
    Member("db", "app-db", "10.77.1.10", state="exited", exit_status=137, since_s=900.0),
    Member("web", "app-web", "10.77.1.11", (80,), "running", "healthy", 5, 6, 990.0),
)
RECORD = Record(
    "app", "shop", "container", "container", 1, 2, 940.0, 950.0, MEMBERS,
    (Published("web", 80, "127.0.0.1", 8080, True), Published("db", 5432, "127.0.0.1", 5432)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (86400, "24 h"), (2e5, "2 d")],
)
def test_ages_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert describe_age(seconds) == words


def test_a_project_is_a_line_and_a_table() -> None:
    shown = describe_project(Project("app", Path("/nowhere"), RECORD, True), 1000.0)
    assert shown.splitlines() == [
        "app: up since 50 s; scenario shop on container",
        "  SERVICE  STATE              ADDRESS     MEMORY  SINCE  ON THIS HOST",
        "  db       exited (137)       10.77.1.10          100 s  127.0.0.1:5432",
        "  web      running (healthy)  10.77.1.11          10 s   http://127.0.0.1:8080/",
    ]


def test_what_a_killed_holder_left_is_told() -> None:
    shown = describe_project(Project("app", Path("/nowhere"), RECORD, False), 1000.0)
    assert "its holder was killed" in shown and "left behind" in shown
    assert describe_project(Project("app", Path("/nowhere"), None, True)) == "app: just being brought up"


FRONT = (sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT))


@pytest.mark.root
def test_the_tasks_from_up_to_down(tmp_path: Path, run_name: str) -> None:
    """As a person writes them, one after the other, with what each prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_HOME": str(tmp_path / "home")}
    folder = tmp_path / "app"
    folder.mkdir()
    shutil.copy2("/bin/busybox", folder / "busybox")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n")
    script = "echo began; busybox httpd -f -p 8080 -h /bin"
    service = {"build": ".", "ports": ["8080"], "command": ["sh", "-c", script], "stop_signal": "KILL"}
    (folder / "compose.yaml").write_text(json.dumps({"name": run_name, "services": {"web": service}}))

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*FRONT, *words], env=environment, cwd="/", capture_output=True, text=True, timeout=60)

    with no_dead_run_left():
        try:
            started = call("up", str(folder), "--share")
            assert started.returncode == 0, started.stderr
            assert f"{run_name}: up since 0 s; scenario {run_name} on container" in started.stdout
            assert "no x-testbed: ready" in started.stderr
            again = call("up", str(folder))
            assert f"{run_name} is up already" in again.stderr and again.stdout.startswith(run_name)
            assert "is up already, on container" in call("up", str(folder), "--platform", "vm").stderr
            (listed,) = json.loads(call("ps", run_name, "--json").stdout)
            assert listed["alive"] and [one["state"] for one in listed["members"]] == ["running"]
            assert call("logs", "-p", run_name, "web").stdout == "web | began\n"
            done = call("exec", "-p", run_name, "web", "sh", "-c", "echo a  b; exit 3")
            assert (done.returncode, done.stdout) == (3, "a b\n")
            missing = call("exec", "-p", run_name, "web", "nowhere", "-x")
            assert missing.returncode == 127 and "exec in web: nowhere: No such file" in missing.stderr
            assert f"{run_name} is up and stays" in call("clean", "--check").stderr
        finally:
            down = call("down", run_name, "--timeout", "0")
        assert down.stdout == f"{run_name} is down\n"
        assert "is up on this host" in call("logs", "-p", run_name).stderr
