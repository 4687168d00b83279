"""What is left of a neighbour whose run was killed: nothing that runs, and nothing that `clean` does not remove."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.lease import CGROUP_ROOT
from testbed import leftovers
from testbed.neighbours.build import NEIGHBOUR
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
# A run that has nothing but a fork bomb without limits, below a ceiling.
RUN = """
import sys, time
from pathlib import Path
from runtime.cgroups import Cgroup
from runtime.images.model import Image, ImageConfig, Layer
from runtime.lease import lease
from runtime.spec import Resources
from testbed.lab import Lab
from testbed.neighbours.cases import Ceiling
from testbed.neighbours.ceiling import hold_below
from testbed.neighbours.neighbour import Neighbour, make_instance, make_spec
from testbed.platforms.container import ContainerPlatform

run, folder = sys.argv[1], Path(sys.argv[2])
entry = ImageConfig(entrypoint=("/testbed-neighbour",))
image = Image("testbed/neighbour", "sha256:0", entry, (Layer("sha256:1", folder / "layer"),))
ceiling = Ceiling(256 << 20, 60)
with lease(run), Lab() as lab, hold_below(Cgroup(f"testbed/{run}"), ceiling):
    platform = ContainerPlatform(run, lab)
    spec = make_spec("fork", image, Resources(), ceiling, lab.link(1, 0), 60)
    one = make_instance("bomb", spec, folder / "log")
    with Neighbour(platform, one, 30) as neighbour:
        neighbour.go()
        time.sleep(60)
"""


@pytest.mark.root
def test_a_killed_run_leaves_no_process_and_what_it_leaves_is_removed(run_name: str, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    shutil.copy2(NEIGHBOUR.build(), tmp_path / "layer" / "testbed-neighbour")
    bomb = Cgroup(f"{CGROUP_ROOT}/{run_name}/bomb")
    run = subprocess.Popen([sys.executable, "-c", RUN, run_name, str(tmp_path)], cwd=ROOT)
    try:
        until(lambda: len(bomb.pids()) == 60, 60, lambda: run.poll())
        run.send_signal(signal.SIGKILL)
        run.wait()
        until(lambda: not bomb.pids(), 30)
        left = {one.kind for one in leftovers.find() if one.run == run_name}
        assert left == {"cgroup", "directory"}
    finally:
        run.kill()
        run.wait()
        leftovers.remove_run(run_name)
    assert not bomb.exists() and not [one for one in leftovers.find() if one.run == run_name]
