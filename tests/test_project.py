"""What outsiders read of the project: its version, stated once, and the files that name it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import tasks
from runtime import __version__
from runtime.launcher import build
from testbed.host import facts

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Of the Citation File Format 1.2.0: what must be given, and what else is used here.
CITATION_NEEDS = {"authors", "cff-version", "message", "title"}
CITATION_MAY = {"abstract", "date-released", "keywords", "license", "type", "version"}

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOBS = ("lint", "unprivileged", "root", "bench")


def test_the_version_stands_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "runtime.__version__"}
    assert facts.read_versions()["testbed"] == __version__


def test_the_bench_prints_the_version() -> None:
    script = "import tasks; tasks.program.run(['testbed', '--version'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"testbed {__version__}\n", done.stderr


def test_the_newest_news_are_of_this_version() -> None:
    versions = re.findall(r"^## (\S+) \((.+)\)$", (ROOT / "NEWS.md").read_text(), re.MULTILINE)
    assert versions[0][0] == __version__
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in versions[1:])
    order = [tuple(int(part) for part in version.split(".")) for version, _ in versions]
    assert order == sorted(order, reverse=True)


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= CITATION_NEEDS
    assert citation.keys() <= CITATION_NEEDS | CITATION_MAY
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]["text"]
    assert [author["name"] for author in citation["authors"]] == [
        each["name"] for each in PROJECT["project"]["authors"]
    ]


def test_each_part_of_the_packages_contains_the_one_before() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert PROJECT["project"]["dependencies"] == []
    assert extras["runtime"] == ["msgspec", "zstandard"]
    assert "testbed[runtime]" in extras["bench"]
    assert "testbed[bench]" in extras["trend"]
    assert "testbed[trend]" in extras["dev"]


def test_the_runtime_is_installed_with_the_sources_of_its_launcher() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["runtime"]
    packed = {path for pattern in patterns for path in (ROOT / "runtime").glob(pattern)}
    assert {Path(path) for path in build.sources()} <= packed
    assert {path.suffix for path in packed} == {".c", ".h"}


def test_every_package_is_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    named = {name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra}
    assert {name.lower() for name in named if not name.startswith("testbed[")} <= locked


def test_hooks_before_a_commit_run_what_the_project_installs() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    locked = (ROOT / "requirements.lock").read_text()
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program == "shellcheck" or f"\n{program.removeprefix('.venv/bin/')}==" in locked


@pytest.mark.parametrize("job", JOBS)
def test_the_workflow_does_nothing_until_it_is_switched_on(job: str) -> None:
    assert tuple(WORKFLOW["jobs"]) == JOBS
    asked_for, switched_on = ("github.event_name == 'workflow_dispatch'", "inputs.bench"), "vars.TESTBED_CI == 'on'"
    alternatives = [each.strip(" ()") for each in WORKFLOW["jobs"][job]["if"].split("||")]
    assert all(each in asked_for or switched_on in each.split(" && ") for each in alternatives)


def test_the_workflow_runs_the_distributions_that_are_supported() -> None:
    images = ["debian:12", "debian:13", "ubuntu:24.04"]
    for job in ("unprivileged", "root"):
        assert WORKFLOW["jobs"][job]["strategy"]["matrix"]["image"] == images
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in WORKFLOW["jobs"].values())


def test_the_workflow_calls_tasks_and_options_that_exist() -> None:
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    calls = [call.split() for step in steps for call in re.findall(r"\./invoke ([^\n|#]+)", step)]
    assert {call[0] for call in calls} == {"test", "doctor", "bench", "clean"}
    for name, *words in calls:
        options = {flag for argument in tasks.namespace[name].get_arguments() for flag in argument.names}
        asked = {word.removeprefix("--") for word in words if word.startswith("--")}
        assert asked - {"help"} <= options, name


def test_the_lock_names_everything_that_is_needed() -> None:
    """./invoke installs what it lists and resolves nothing: a release made since then must not matter."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    overridden = ("apache-otava ",)  # pyproject.toml says what of it is left out, and why
    assert [line for line in done.stdout.splitlines() if " has requirement " in line or " requires " in line] == [
        line for line in done.stdout.splitlines() if line.startswith(overridden)
    ]
