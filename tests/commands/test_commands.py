"""The tasks on runs, end to end: what they print, where, and with which exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVOKE = Path(sys.executable).parent / "invoke"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(INVOKE), "--search-root", str(ROOT), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, one of the same, one that is slower, and one of another scenario."""
    spec = importlib.util.spec_from_file_location("run_writer", ROOT / "tests/reports/conftest.py")
    assert spec and spec.loader
    writer: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    base = tmp_path_factory.mktemp("runs")
    size = {"platforms": ("container",), "starts": 20, "ramps": 0, "blocks": 0}
    writer._write(base, name="before", **size)
    writer._write(base, name="same", **size)
    writer._write(base, name="other", scenario="another", **size)
    writer.SCALE["container"] = (0.9, 0.00045, 44 << 20)
    writer._write(base, name="slower", **size)
    return base


@pytest.mark.parametrize(
    ("after", "limit", "code", "sentence"),
    [
        ("same", "10%", 0, "No figure got worse by more than its limit."),
        ("slower", "10%", 3, "1 of 1 figures got worse by more than was allowed."),
        ("same", "0.01%", 4, "changes could have been seen from +"),
    ],
)
def test_a_gate_tells_by_its_exit_code(runs: Path, after: str, limit: str, code: int, sentence: str) -> None:
    done = run("compare", str(runs / "before"), str(runs / after), "--gate", "--limit", limit)
    assert done.returncode == code, done.stderr
    assert sentence in " ".join(done.stdout.split()) and done.stderr == ""


def test_without_a_gate_a_comparison_only_tells(runs: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("page.html", "cases.xml", "summary.md", "step.md")}
    done = run(
        "compare", str(runs / "before"), str(runs / "slower"), "--json", "--html", str(files["page.html"]), "--junit",
        str(files["cases.xml"]), "--markdown", str(files["summary.md"]), GITHUB_STEP_SUMMARY=str(files["step.md"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "regression"
    assert ElementTree.parse(files["cases.xml"]).getroot().get("failures") == "1"
    assert "<svg" in files["page.html"].read_text()
    assert files["step.md"].read_text().strip() == files["summary.md"].read_text().strip() != ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "{}/before", "{}/other"), "cannot be compared: they ran other scenarios (clickme and another)"),
        (("compare", "{}/before", "{}/nowhere"), "is no run folder: it does not exist"),
        (("compare", "{}/before", "{}/same", "--limit", "lots"), "--limit lots: not a limit"),
        (("compare", "{}/before", "{}/same", "--html", "/proc/x/y"), "cannot write /proc/x/y"),
        (("trend", "{}/nowhere"), "cannot read"),
        (("export", "{}/before"), "export --format (none): there is no such format"),
        (("export", "{}/before", "--format", "xls"), "export --format xls: there is no such format"),
        (("export", "{}/before,{}/same", "--format", "junit"), "this format is of one run, not of 2"),
        (("export", "{}/before", "--format", "parquet"), "into which folder?"),
        (("completion", "tcsh"), "completion tcsh: no such shell"),
        (
            ("bench", "--scenario", "clickme", "--gate"),
            "--html and --junit need --baseline",
        ),
        (
            ("bench", "--scenario", "clickme", "--baseline", "{}/other"),
            "they ran other scenarios (another",
        ),
        (("bench", "--scenario", "clickme", "--baseline", "{}/nowhere"), "is no run folder"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(runs: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*(argument.format(runs, runs) for argument in arguments))
    assert done.returncode in (1, 5), done.stdout
    assert message in done.stderr and "Traceback" not in done.stderr


def test_trend_index_and_export_work_on_a_folder(runs: Path, tmp_path: Path) -> None:
    copies = tmp_path / "runs"
    shutil.copytree(runs, copies)
    assert "too few to tell a change from chance" in run("trend", str(copies)).stdout
    assert json.loads(run("trend", str(copies), "--json").stdout)["schema"] == "testbed-trend/1"
    assert run("index", "--folder", str(copies)).stdout.strip() == f"{copies / 'index.html'}: 4 runs"
    assert run("export", str(copies / "same"), "--format", "openmetrics").stdout.endswith("# EOF\n")
    shutil.rmtree(copies / "other")
    assert run("export", str(copies), "--format", "otava").stdout.count("\n") == 4
    files = ("--out", str(tmp_path / "b.json"), "--parquet", str(tmp_path / "p"))
    done = run("export", str(copies / "same"), "--format", "bmf", *files)
    assert done.returncode == 0 and done.stdout == ""
    assert json.loads((tmp_path / "b.json").read_text())["clickme/container/start"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["metrics.parquet", "trials.parquet"]


def test_scenarios_and_platforms_are_listed() -> None:
    (clickme,) = [one for one in json.loads(run("scenarios", "--json").stdout) if one["name"] == "clickme"]
    assert clickme["services"] == ["redis", "web"] and "clicks" in clickme["description"]
    assert "10, 25, 50, 100, 200 requests/s" in clickme["utilisation"]
    text = run("scenarios", COLUMNS="60").stdout
    assert max(map(len, text.splitlines())) <= 60 and "services: redis, web" in text


def complete(*words: str) -> list[str]:
    """What bash offers after these words."""
    script = run("completion", "bash").stdout
    asked = f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}"
    ask = f"{script}\n{asked}; _testbed; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_tasks_options_and_values() -> None:
    assert {"compare", "trend", "scenarios"} <= set(complete("./invoke", ""))
    assert complete("./invoke", "bench", "--scen") == ["--scenario"]
    assert "clickme" in complete("./invoke", "bench", "--scenario", "cl")
    listed = complete("./invoke", "bench", "--platforms", "container,vm-po")
    assert sorted(listed) == ["container,vm-pod", "container,vm-pooled"]
    assert complete("./invoke", "export", "x", "--format", "open") == ["openmetrics"]


@pytest.mark.parametrize(
    ("shell", "check"), [("bash", ("bash", "-n")), ("zsh", ("zsh", "-n")), ("fish", ("fish", "-n"))]
)
def test_the_scripts_are_ones_of_their_shells(shell: str, check: tuple[str, ...], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(run("completion", shell).stdout)
    assert script.read_text().startswith(("#", "autoload"))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], check=True)
