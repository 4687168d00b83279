"""The benchmark of what runtimes keep: what differs of their walls, as the host sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.isolation import Result, describe_walls, explain_wall, print_differences, see_walls, sort_outcomes
from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.probes.build import PROGRAM
from testbed.probes.model import Outcome

OURS = Result(
    "container", (), ("interfaces-perf", "devices-disk-read"), (), {"capabilities": "kill", "seccomp": "a filter"}
)
THEIRS = Result("lxc", ("interfaces-perf",), ("devices-disk-read",), (), {"capabilities": "net_raw", "seccomp": "none"})


def test_what_differs_of_a_wall_is_told() -> None:
    assert explain_wall("seccomp", THEIRS, OURS) == "none, ours: a filter"
    assert explain_wall("seccomp", OURS, OURS) == "the same"
    assert explain_wall("capabilities", THEIRS, OURS) == "more: net_raw; less: kill"
    assert explain_wall("devices", THEIRS, OURS) == "not seen from outside"


def test_probes_that_differ_stand_with_their_wall(capsys: pytest.CaptureFixture[str]) -> None:
    print_differences(THEIRS, OURS)
    said = capsys.readouterr().out
    assert "done there, and not in a container of ours" in said and "interfaces-perf\n" in said
    assert "seccomp: none, ours: a filter" in said and "devices-disk-read" not in said


def test_whoever_meant_what_counts_for_nothing() -> None:
    kinds = ("leaked", "permitted", "blocked", "broken", "untestable")
    outcomes = [Outcome("x", kind, kind, "unsaid") for kind in kinds]  # type: ignore[arg-type]
    found = sort_outcomes("x", outcomes, {})
    assert (found.done, found.kept, found.untestable) == (kinds[:2], kinds[2:4], kinds[4:])


def test_of_a_process_of_the_hosts_every_namespace_is_the_hosts() -> None:
    walls = dict(describe_walls(Path("/proc/self")))
    assert {walls[kind] for kind in ("pid", "network", "user", "cgroup")} == {"the host's"}


@pytest.mark.root
def test_the_walls_of_a_container_are_seen_from_outside(cgroup_parent: str, run_name: str, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "testbed-probe").write_bytes(PROGRAM.build().read_bytes())
    (tmp_path / "layer" / "testbed-probe").chmod(0o755)
    image = Image("test", "sha256:0", ImageConfig(), (Layer("sha256:1", tmp_path / "layer"),))
    with Lab() as lab:
        platform = ContainerPlatform(run_name, lab)
        try:
            walls = see_walls(platform, lab, image, tmp_path)
        finally:
            platform.close()
    assert walls["pid"] == walls["network"] == "its own" and walls["user"] == "the host's"
    assert walls["seccomp"] == "a filter" and "net_raw" in walls["capabilities"].split()
    assert "/proc/sys" in walls["masks"].split() and "sys_admin" not in walls["capabilities"].split()
