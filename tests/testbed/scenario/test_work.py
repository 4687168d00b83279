"""x-testbed.work: what it means, and all that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.measures.trials import NAMES
from testbed.scenario.model import Scenario, list_scenarios, load
from testbed.scenario.work import UNITS, Work, convert

SCENARIOS = Path(__file__).parents[3] / "scenarios"
BEGINNING = """\
services:
  web: {build: ., deploy: {resources: {limits: {memory: 64M, cpus: 1}}}}
x-testbed:
  ready: {service: web, port: 80}
"""


def _load(folder: Path, lines: str) -> Scenario:
    (folder / "Dockerfile").write_text("FROM testbed/base\n")
    (folder / "compose.yaml").write_text(BEGINNING + lines)
    return load(f"{folder}/", folder)


def test_work_is_asked_of_who_answers_the_ready_check(tmp_path: Path) -> None:
    scenario = _load(tmp_path, "  work: {figures: {speed: MiB/s}}\n  quick: {work: {path: /run?quick}}\n")
    assert scenario.settings.work == Work("web", 80, "/run", 120, 1200, (("speed", "MiB/s"),))
    assert scenario.quick.work is not None and scenario.quick.work.path == "/run?quick"
    assert scenario.settings.measures == ("start", "work")
    assert _load(tmp_path, "").settings.measures == ("start", "density", "utilisation")
    assert {*scenario.settings.measures, "density", "utilisation", "neighbours", "consolidation"} == set(NAMES)


def test_the_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _load(
            tmp_path,
            "  work:\n    service: app\n    timeout_s: 0\n    colour: red\n"
            "    figures: {Speed: MiB/s, work_cpu: s, a: furlongs, b: [s]}\n",
        )
    message = str(caught.value)
    for part in (
        ":6: x-testbed.work.service: 'app' is no service",
        ":7: x-testbed.work.timeout_s: is '0'",
        ":8: x-testbed.work.colour: is not supported",
        "x-testbed.work.figures.Speed: 'Speed' is no name of a figure",
        "x-testbed.work.figures.work_cpu: 'work_cpu' is a figure that the testbed adds itself",
        "x-testbed.work.figures.a: is 'furlongs'; expected the unit that the program writes it in: s, ms",
        "x-testbed.work.figures.b: is a list",
    ):
        assert part in message, message


@pytest.mark.parametrize("figures", ["{}", ""])
def test_work_without_a_figure_is_none(figures: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x-testbed\.work"):
        _load(tmp_path, f"  work: {{port: 80, figures: {figures}}}\n")


def test_units_lead_to_those_of_the_run_folder() -> None:
    assert {base for _, base in UNITS.values()} == {"s", "bytes", "bytes/s", "flop/s", "1/s"}
    assert convert(8.0, "Mbit/s") == (1e6, "bytes/s")
    assert convert(2.0, "us") == (2e-6, "s")


@pytest.mark.parametrize("name", list_scenarios(SCENARIOS))
def test_every_scenario_can_be_read(name: str) -> None:
    scenario = load(name, SCENARIOS)
    assert scenario.name == name
    work, quick = scenario.settings.work, scenario.quick.work
    assert (work is None) == (quick is None)
    if work is not None and quick is not None:
        service = next(one for one in scenario.services if one.name == work.service)
        assert service.build is not None
        script = service.build.context / "www" / work.path.removeprefix("/")
        assert script.stat().st_mode & 0o111 == 0o111, "the server executes it"
        assert (work.figures, quick.path) == (quick.figures, f"{work.path}?quick")
        assert script.read_text().startswith("#!/bin/sh\n")
        names = script.read_text()
        assert all(figure.partition("_")[0] in names for figure, _ in work.figures)
