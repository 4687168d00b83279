"""What can be asked for of a run, and what runs at the same time then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError
from testbed.manifest import make_manifest
from testbed.measures.design import Asked, Design, choose_design
from testbed.request import Options, check_options, choose_again, choose_measures, choose_settings, make_groups
from testbed.scenario import consolidation
from testbed.scenario.model import load
from testbed.scenario.new import create_scenario

FULL = choose_design(("start",), 10, Asked())
SHORT = choose_design(("start",), 10, Asked(quick=True))
RIVALS = ("container@1a2b", "vm@1a2b")


def options(**changes: Any) -> Options:
    given: dict[str, Any] = {
        "scenario": "small", "platforms": (), "accelerator": "auto", "measures": (), "trials": None, "quick": False,
        "seed": 1, "out": Path(), "scenarios": Path(), "command": (),
    }  # fmt: skip
    return Options(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "design", "again"),
    [
        ({}, FULL, "vm"),
        ({}, SHORT, ""),
        ({"duet": True}, FULL, ""),
        ({"against": "main"}, FULL, ""),
        ({"again": "none"}, FULL, ""),
        ({"again": "first"}, SHORT, "vm"),
        ({"again": "vm-restored"}, SHORT, "vm-restored"),
    ],
)
def test_a_full_run_measures_its_first_cold_platform_again(changes: dict[str, Any], design: Design, again: str) -> None:
    assert choose_again(options(**changes), ("vm-restored", "vm", "container"), design) == again


def test_what_is_not_measured_cannot_be_measured_again() -> None:
    with pytest.raises(UsageError, match="--aa peer: it is not among the platforms") as raised:
        choose_again(options(again="peer"), ("container", "vm"), FULL)
    assert "one of container, vm, or none" in raised.value.hint


def test_density_is_not_for_two() -> None:
    own = ("start", "density", "utilisation")
    assert choose_measures(options(), own) == own
    assert choose_measures(options(duet=True), own) == ("start", "utilisation")
    with pytest.raises(UsageError, match="density fills the host"):
        choose_measures(options(duet=True, measures=("start", "density")), own)
    with pytest.raises(UsageError, match="unknown measure"):
        choose_measures(options(duet=True), ("density",))


def test_platforms_run_one_by_one_unless_it_is_a_duet() -> None:
    names = ("container", "vm")
    assert make_groups(options(), names, "container", ()) == (("container",), ("vm",), ("container@again",))
    assert make_groups(options(), names, "", RIVALS) == (("container",), ("vm",), (RIVALS[0],), (RIVALS[1],))
    assert make_groups(options(duet=True), names, "", ()) == (names,)
    assert make_groups(options(duet=True), names, "", RIVALS) == (("container", RIVALS[0]), ("vm", RIVALS[1]))
    assert make_groups(options(duet=True), ("vm",), "vm", ()) == (("vm", "vm@again"),)


@pytest.mark.parametrize(
    ("names", "again", "rivals", "problem"),
    [
        (("container",), "", (), "two platforms run at the same time, not container"),
        (("container", "vm", "vm-pod"), "", (), "not container, vm, vm-pod"),
        (("container", "vm"), "vm", (), "not container, vm and vm again"),
        (("container", "vm"), "vm", RIVALS, "each platform has its rival"),
    ],
)
def test_a_duet_is_of_two(names: tuple[str, ...], again: str, rivals: tuple[str, ...], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        make_groups(options(duet=True), names, again, rivals)


def test_servers_that_nobody_would_pack_are_told(tmp_path: Path) -> None:
    create_scenario("tiny", tmp_path)

    def check(**changes: Any) -> None:
        given = {"scenario": "tiny", "platforms": ("container",), "scenarios": tmp_path, "out": tmp_path / "results"}
        check_options(options(**(given | changes)), lambda line: None)

    packed = consolidation.Asked(fractions=(0.05,))
    with pytest.raises(UsageError, match="they are of the measure consolidation") as raised:
        check(packed=packed)
    assert raised.value.hint == "--measures start,density,utilisation,consolidation"
    with pytest.raises(UsageError, match="--against: consolidation has one calibration"):
        check(measures=("consolidation",), against="main")
    with pytest.raises(UsageError, match="--duet: consolidation fills the host"):
        check(measures=("consolidation",), duet=True, platforms=("container", "vm"))


def test_one_cap_is_for_all_ramps_and_the_reference_machine_s_for_servers(tmp_path: Path) -> None:
    create_scenario("tiny", tmp_path)
    scenario = load("tiny", tmp_path)
    settings = choose_settings(scenario, options(cap=7))
    assert (settings.density.cap, settings.consolidation.cap) == (7, 7)
    settings = choose_settings(scenario, options(cap=8, packed=consolidation.Asked(cap=20)))
    assert (settings.density.cap, settings.consolidation.cap) == (8, 20)


def test_steps_are_numbers_of_applications_in_their_order_and_end_the_ramp(tmp_path: Path) -> None:
    create_scenario("tiny", tmp_path)
    scenario = load("tiny", tmp_path)
    density = choose_settings(scenario, options(steps=(12, 24))).density
    assert (density.cap, density.steps) == (24, (12, 24))
    for given in ({"steps": (24, 12)}, {"steps": (0, 1)}, {"steps": (3, 3)}, {"steps": (1, 2), "cap": 2}):
        with pytest.raises(UsageError, match="--steps "):
            choose_settings(scenario, options(**given))


@pytest.mark.root
def test_what_strangers_files_do_not_say_is_told_and_what_it_rules_out_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    told: list[str] = []

    def check(services: str, *measures: str) -> tuple[str, ...]:
        file.write_text(f"services: {services}\n")
        asked = options(scenario=str(file), platforms=("container",), measures=measures, out=tmp_path / "out")
        return check_options(asked, told.append).measures

    assert check("{web: {image: x, ports: [80], labels: [a]}}") == ("start", "density", "utilisation")
    assert any("read over, as it is not part of a measure: labels (web)" in line for line in told)
    assert any("web: no limit given, so it gets 1 processor and 512 MiB" in line for line in told)
    assert check("{db: {image: x, ports: [5432]}}") == ("start",)
    with pytest.raises(UsageError, match="no load can be offered at db:5432"):
        check("{db: {image: x, ports: [5432]}}", "start", "utilisation")
    with pytest.raises(UsageError, match="no service publishes a port"):
        check("{worker: {image: x}}")


@pytest.mark.root
def test_what_is_otherwise_than_in_the_file_is_in_the_manifest(tmp_path: Path) -> None:
    create_scenario("small", tmp_path)
    compose = tmp_path / "small" / "compose.yaml"
    hosted = "  web:\n    network_mode: host\n    tty: true\n    labels: {a: b}\n"
    compose.write_text(compose.read_text().replace("  web:\n", hosted, 1))
    heard: list[str] = []
    asked = options(scenario=str(compose), platforms=("container",), quick=True, out=tmp_path, measures=("start",))
    request = check_options(asked, heard.append)
    manifest = make_manifest("run", asked, request, {})
    assert manifest["host_network"] == ["web"]
    notes = manifest["compose"]["notes"]  # type: ignore[index]
    assert {f"small: {note}" if note.startswith("read over") else note for note in notes} <= set(heard)
    assert [note.partition(",")[0] for note in notes] == [
        "read over",
        "web: not applied: tty",
        "web: network_mode: host: the run's own network",
    ]
