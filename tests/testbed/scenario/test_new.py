"""A new scenario is complete, and is never written over another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.qemu.domain import compute_guest_memory
from testbed.scenario.model import list_scenarios, load
from testbed.scenario.new import create_scenario

ROOT = Path(__file__).resolve().parents[3]


def test_it_is_a_scenario(tmp_path: Path) -> None:
    files = create_scenario("my-app_2", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "my-app_2/compose.yaml",
        "my-app_2/web/Dockerfile",
        "my-app_2/web/www/index.html",
    ]
    assert list_scenarios(tmp_path) == ("my-app_2",)
    assert [path.name for path in tmp_path.iterdir()] == ["my-app_2"]
    scenario = load("my-app_2", tmp_path)
    assert scenario.name == "my-app_2"
    assert [service.ports for service in scenario.services] == [(8080,)]
    assert scenario.quick.trials == 2
    assert compute_guest_memory(scenario.services[0].resources, "web")  # enough for a virtual machine


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/tmp/x", "Big", "a b", "-x", "_x", "ä", "a\n", "a\x1b[31m", "a" * 41, "a.b"],
)
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a scenario") as caught:
        create_scenario(name, tmp_path / "scenarios")
    assert "\x1b" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(UsageError, match=f"{name} is there already"):
            create_scenario(name, tmp_path)
    assert (tmp_path / "file").read_text() == "mine" and not list((tmp_path / "folder").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "scenarios").write_text("")
    with pytest.raises(UsageError, match=r"write .*scenarios/app: "):
        create_scenario("app", tmp_path / "scenarios")


@pytest.mark.root
@pytest.mark.network
def test_it_runs(tmp_path: Path) -> None:
    create_scenario("new-scenario", tmp_path)
    arguments = ("bench", "--scenario", str(tmp_path / "new-scenario"), "--quick", "--share")
    options = ("--platforms", "container", "--measures", "start,utilisation")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "invoke"), *arguments, *options, "--out", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (trials,) = tmp_path.glob("*/trials.jsonl")
    assert trials.read_text().count('"outcome":"ok"') + trials.read_text().count('"outcome": "ok"') >= 3
