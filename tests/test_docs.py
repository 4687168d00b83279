"""The files in docs/ that can be executed: the notebook, and the workflow that is ready to be copied."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks
from benchmarks.false_alarms import make_runs

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "analysis.ipynb").read_text())
NIGHTLY = yaml.safe_load((ROOT / "docs" / "nightly.yml").read_text())


def sources(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


@pytest.mark.root
def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path: Path) -> None:
    """On two small runs of real starts, made now; all cells in one namespace, as a kernel executes them."""
    first, second = (one.run.folder.path for one in make_runs(2, 8, str(tmp_path)))
    script = "import matplotlib; matplotlib.use('Agg')\n" + "\n".join(sources("code"))
    script += "\nassert len(comparison.rows) == 2 and len(counted) == 16\nprint(run_folder.name)\n"
    environment = {**os.environ, "TESTBED_RUN": str(second), "TESTBED_OTHER_RUN": str(first), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::FutureWarning", "-c", script]
    done = subprocess.run(command, cwd=ROOT / "docs", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{second.name}\n"


def test_the_notebook_is_kept_without_outputs_and_names_files_that_exist() -> None:
    cells: list[dict[str, Any]] = NOTEBOOK["cells"]
    assert NOTEBOOK["nbformat"] == 4
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    for link in re.findall(r"\]\(([^)]+)\)", "\n".join(sources("markdown"))):
        assert (ROOT / "docs" / link).is_file()


def commands() -> list[list[str]]:
    steps = [step.get("run", "") for step in NIGHTLY["jobs"]["bench"]["steps"]]
    joined = "\n".join(steps).replace("\\\n", " ")
    return [call.split() for call in re.findall(r"\./invoke ([^\n|#]+)", joined)]


def test_the_nightly_job_calls_tasks_and_options_that_exist() -> None:
    assert {call[0] for call in commands()} == {"bench", "trend", "index"}
    for name, *words in commands():
        options = {flag for argument in tasks.namespace[name].get_arguments() for flag in argument.names}
        assert {word.removeprefix("--") for word in words if word.startswith("--")} <= options


def test_the_nightly_job_is_not_one_of_this_repository() -> None:
    assert not (ROOT / ".github" / "workflows" / "nightly.yml").exists()
    assert NIGHTLY["permissions"] == {"contents": "read"} and NIGHTLY["jobs"]["bench"]["timeout-minutes"] <= 240


@pytest.mark.parametrize("step", [step["run"] for step in NIGHTLY["jobs"]["bench"]["steps"] if "run" in step])
def test_its_scripts_are_shell(step: str) -> None:
    subprocess.run(["bash", "-n", "-c", re.sub(r"\$\{\{.*?\}\}", "x", step)], check=True)
