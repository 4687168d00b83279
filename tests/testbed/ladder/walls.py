"""What an attack on a container of ours without one of its walls must come to, here and in a guest, where there is no
pytest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.ladder.attack import BUDGET_S, attack
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform
from testbed.platforms.rungs.platform import RungPlatform
from testbed.probes.build import PROGRAM
from testbed.probes.model import Outcome, Probe
from testbed.probes.objects import read_left
from testbed.probes.read import read_probes
from testbed.rungs.model import Isolation, Rung
from testbed.rungs.walls import find_walls

Attack = Callable[..., dict[str, Outcome]]
CONTAINER = Isolation(
    "pivot_root",
    ("mount", "pid", "ipc", "uts", "network", "cgroup"),
    "stack",
    capabilities="default",
    system_calls="default",
    devices="cgroup",
    limits=("memory", "cpus", "pids"),
    masks=True,
    no_new_privileges=True,
    read_only_sysfs=True,
)
RUNG = Rung("walled", "Walled", 2026, "containers", "a container of ours, as a rung", {}, CONTAINER)
# What it has no wall for, as every container of a kernel.
OPEN = frozenset(one.name for one in read_probes() if not one.walls & find_walls(CONTAINER))
# A root that is only changed to keeps these, but not the second chroot: the wall has two parts.
BEHIND_CHROOT = frozenset(("files-host-path", "files-dot-dot", "files-open-directory"))
# What takes its time, left out where it is not what is looked for.
SLOW = ("traffic", "watched", "held_memory", "held_tasks", "used_processors")


def make_probe_image(folder: Path) -> Image:
    """An image of the probes' program, which no store has, in a folder that is made."""
    (folder / "tmp").mkdir(parents=True)
    shutil.copy2(PROGRAM.build(), folder / "testbed-probe")
    return Image("testbed/probe", "sha256:0", ImageConfig(), (Layer("sha256:1", folder),))


@contextmanager
def attacking(image: Image, run: str) -> Iterator[Attack]:
    """Within, a platform is attacked by its name, or a rung that has an isolation without some of its walls; what comes
    of it is by probe. Raises AssertionError when something is left."""
    lease = Path("/run/testbed") / run
    with Lab() as lab:

        def attack_one(
            name: str,
            rung: Rung | None,
            probes: Sequence[Probe] | None = None,
            without: Collection[str] = (),
            budget_s: float = BUDGET_S,
        ) -> dict[str, Outcome]:
            platform: PeerPlatform | ContainerPlatform
            if name == "container":
                platform = ContainerPlatform(run, lab)
            elif name in PEERS:
                platform = PeerPlatform(PEERS[name], run, lease, lab)
                platform.prepare_program()
            else:
                assert rung is not None
                platform = RungPlatform(rung, run, lease, lab, without)
                platform.prepare_rung()
            try:
                return {
                    one.probe: one
                    for one in attack(platform, rung, lab, image, lease, probes=probes, budget_s=budget_s)
                }
            finally:
                platform.close()

        yield attack_one
    assert read_left(lease) == () and list(lease.glob("canaries-*")) == []
    assert list(Path("/").glob(".testbed-probe-*")) == []


def choose_probes(walls: Collection[str]) -> tuple[Probe, ...]:
    """The probes of these walls, and the others that are quick."""
    return tuple(one for one in read_probes() if one.walls & set(walls) or one.canary.partition(" ")[0] not in SLOW)


def find_kept(isolation: Isolation, walls: Collection[str], probes: Sequence[Probe]) -> set[str]:
    """Which of the probes these walls of an isolation keep, and no other that it has."""
    there = find_walls(isolation)
    return {one.name for one in probes if one.walls & there and one.walls & there <= set(walls)}


def find_expected(walls: Collection[str], probes: Sequence[Probe], isolation: Isolation = CONTAINER) -> set[str]:
    """Which of the probes leak from an isolation without these walls, on a kernel that can do all of it."""
    expected = find_kept(isolation, walls, probes)
    return expected - BEHIND_CHROOT if "root" in walls else expected


def find_impossible(outcomes: dict[str, Outcome], walls: Collection[str]) -> set[str]:
    """What this host's kernel does for nobody without these walls: it has no such call, or real-time groups, or asks
    for a capability (kernel.perf_event_paranoid of Debian's)."""
    none = {name for name, one in outcomes.items() if one.verdict == "untestable" or one.errno == "ENOSYS"}
    has_groups = any(Path("/sys/fs/cgroup").glob("*/cpu.rt_runtime_us"))
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    is_asked = paranoid > 2 and "capabilities" not in walls
    return none | ({"resources-real-time"} if has_groups else set()) | ({"interfaces-perf"} if is_asked else set())


def find_leaked(outcomes: dict[str, Outcome], isolation: Isolation = CONTAINER) -> set[str]:
    """Which probes got past walls that this isolation has when it is whole."""
    kept = find_kept(isolation, find_walls(isolation), read_probes())
    return {name for name, one in outcomes.items() if one.verdict == "permitted"} & kept
