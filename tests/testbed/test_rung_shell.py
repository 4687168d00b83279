"""The shell on a rung: what it says of the rung before, and for which there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.rung_shell import describe, open_shell
from testbed.rungs.read import find_rung

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize(
    ("name", "apart", "shared"),
    [
        ("chroot-1982", "files (chroot), devices", "processes, network"),
        ("jail-2000", "network (one address)", "users"),
        ("lmctfy-2013", "isolated: memory and cpus", "files, processes, network"),
        (
            "sandboxed",
            "users, how long it has been up, capabilities, system calls",
            "not: nothing, and never the kernel",
        ),
    ],
)
def test_one_line_says_what_is_isolated_and_what_is_not(name: str, apart: str, shared: str) -> None:
    rung = find_rung(name)
    assert rung.isolation is not None
    line = describe(rung, rung.isolation)
    assert line.startswith(f"{name} (") and "\n" not in line
    before, _, after = line.partition("; not: ")
    assert apart in before and shared in f"not: {after}"


@pytest.mark.parametrize("name", ["hardware-2006", "container", "cp67-1967"])
def test_what_is_not_made_of_walls_has_no_shell(name: str) -> None:
    with pytest.raises(UsageError, match="no rung of containers that is made of walls") as caught:
        open_shell(SCENARIOS, name, print)
    assert "chroot-1982" in caught.value.hint and "container" not in caught.value.hint.split(", ")
