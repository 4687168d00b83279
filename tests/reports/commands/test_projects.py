"""The tasks that deal with what is up, as a person sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.commands.project_table import describe_age, describe_project
from testbed.projects.record import Member, Project, Published, Record

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
