"""The lists of what there is: complete, and honest about what does not work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import listing
from testbed.listing import DESCRIPTIONS, list_platforms, list_scenarios
from testbed.platforms.hypervisors import HYPERVISORS
from testbed.platforms.registry import NAMES
from testbed.platforms.rungs.names import RUNGS
from testbed.scenario.new import create_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def test_every_platform_is_described() -> None:
    assert set(DESCRIPTIONS) == {*NAMES, *HYPERVISORS} - {*RUNGS}
    assert all(0 < len(text) < 100 for text in DESCRIPTIONS.values())


def test_every_platform_says_what_it_is_or_why_it_is_not_here() -> None:
    listed = list_platforms()
    assert tuple(one.name for one in listed) == (*NAMES, *HYPERVISORS)
    for one in listed:
        assert one.detail and one.description
        assert one.available or one.fix, f"{one.name} is not here, and nobody says what to do"


def test_without_root_nothing_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not any(one.available for one in list_platforms())


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    by_name = {one.name: one for one in list_platforms()}
    assert not by_name["vm"].available
    assert "qemu-system-x86_64 is not on the PATH" in by_name["vm"].detail and "install" in by_name["vm"].fix


def test_scenarios_say_what_is_measured(tmp_path: Path) -> None:
    by_name = {one.name: one for one in list_scenarios(SCENARIOS)}
    assert by_name["clickme"].services == ("redis", "web")
    assert "up to 24 copies" in by_name["clickme"].density
    assert all(one.description and not one.problem for one in by_name.values())
    create_scenario("mine", tmp_path)
    (tmp_path / "mine" / "compose.yaml").write_text("# mine: what I wrote\nservices: 5\n")
    (mine,) = list_scenarios(tmp_path)
    assert mine.description == "what I wrote" and "compose.yaml:2" in mine.problem
    assert listing._read_description(tmp_path / "nowhere") == ""
