"""Names and records of projects."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from runtime.lease import lease
from testbed.projects.record import Record, check_name, choose, find, lease_name, list_projects, write


def test_a_lease_has_a_name_of_its_own_that_fits_into_a_path() -> None:
    assert lease_name("clickme") == "up-clickme"
    long = "a" * 39
    assert lease_name(f"{long}b") != lease_name(f"{long}c")
    assert len(lease_name(f"{long}b")) == 31


@pytest.mark.parametrize("name", ["", "../x", "A", "-x", "a" * 41, "a\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="no project's name"):
        check_name(name)


@pytest.mark.root
def test_projects_are_found_by_their_leases(tmp_path: Path, run_name: str) -> None:
    root = tmp_path / "run"
    with pytest.raises(UsageError, match="nothing is up on this host"):
        choose("", root)
    with lease(run_name, root), lease(lease_name(f"{run_name}-b"), root) as directory:
        assert [one.record for one in list_projects(root)] == [None]
        record = Record(f"{run_name}-b", "app", "container", "container", 1, 2, 3.0)
        write(directory, record)
        (project,) = list_projects(root)
        assert project == find(record.name, root) == choose("", root)
        assert project.alive and project.record == record
        with pytest.raises(UsageError, match="no project 'other' is up"):
            choose("other", root)
        (directory / "project.json").write_text("{")
        with pytest.raises(PrerequisiteError, match=r"project\.json"):
            list_projects(root)
    assert list_projects(root) == ()
