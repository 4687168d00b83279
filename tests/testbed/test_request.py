"""What can be asked for of a run, and what runs at the same time then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError
from testbed.measures.design import Asked, Design, choose_design
from testbed.request import Options, choose_again, choose_measures, make_groups

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
