"""The tasks on unions, end to end: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.commands.front import join_group

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("inv union mount br:/a /m", "inv union.mount br:/a /m"),
        ("inv --search-root /x union list --json", "inv --search-root /x union.list --json"),
        ("inv union add --help", "inv --help union.add"),
        ("inv images kernel", "inv images.kernel"),
        ("inv union.mount br:/a /m", "inv union.mount br:/a /m"),
        ("inv bench --scenario union mount", "inv bench --scenario union mount"),
        ("inv union", "inv union"),
        ("inv --list", "inv --list"),
    ],
)
def test_a_group_and_its_task_are_one(words: str, joined: str) -> None:
    assert join_group(words.split()) == joined.split()


@pytest.mark.root
def test_a_union_by_its_tasks(tmp_path: Path) -> None:
    for name in ("a", "b", "m"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "file").touch()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        front = [sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT), "union", *words]
        own = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(front, cwd=ROOT, env=own, capture_output=True, text=True, check=False)

    branch, target = f"br:{tmp_path}/a=rw:{tmp_path}/b=ro", str(tmp_path / "m")
    try:
        made = run("mount", branch, target)
        assert made.returncode == 0 and "driver: overlay (the kernel's" in made.stdout, made.stderr
        asked = run("which", f"{target}/file", "--json")
        assert json.loads(asked.stdout)["branch"] == f"{tmp_path}/b=ro"
        assert run("which", f"{target}/nothing").returncode == 1
        listed = json.loads(run("list", "--json").stdout)
        assert [one["driver"] for one in listed if one["target"] == target] == ["overlay"]
        wrong = run("del", "/nowhere", target)
        assert wrong.returncode == 1 and wrong.stderr.startswith("error: the union has no branch /nowhere")
    finally:
        done = run("umount", target)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "m"]
