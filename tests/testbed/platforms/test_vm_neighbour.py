"""A neighbour as a guest: it is told over the network as everywhere, and what it does stays in its guest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.neighbours.build import NEIGHBOUR
from testbed.neighbours.cases import TENANT, compute_ceiling
from testbed.neighbours.ceiling import hold_below
from testbed.neighbours.image import PROGRAM
from testbed.neighbours.neighbour import Neighbour, State, make_instance, make_spec
from testbed.platforms.vm import VmPlatform
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.vm]

TIMEOUT_S = 120.0


def test_a_fork_bomb_is_stopped_in_its_guest(
    make_vm: Callable[[str], VmPlatform], layer: Path, run_name: str, cgroup_parent: str, tmp_path: Path
) -> None:
    shutil.copy2(NEIGHBOUR.build(), layer / PROGRAM.lstrip("/"))
    platform = make_vm("vm")
    entry = ImageConfig(entrypoint=(PROGRAM,))
    image = Image("testbed/neighbour", f"sha256:{run_name}", entry, (Layer("sha256:busybox", layer),))
    ceiling = compute_ceiling(0, 0, virtual=True)
    with Lab() as lab, hold_below(Cgroup(cgroup_parent), ceiling):
        bomb = make_instance("bomb", make_spec("fork", image, TENANT, ceiling, lab.link(1, 0), 60), tmp_path / "log")
        with Neighbour(platform, bomb, TIMEOUT_S) as neighbour:
            neighbour.go()

            def find_refused() -> State | None:
                state = neighbour.read_state()  # None where it is too busy to answer
                return state if state and state.refused else None

            state = until(find_refused, TIMEOUT_S)
            assert state is not None and TENANT.pids is not None and 0 < state.work < TENANT.pids
            assert neighbour.alive and len(platform.cgroup(bomb).pids()) == 1, "on the host it is one process, QEMU"
        assert not platform.cgroup(bomb).exists()
