"""Real players: containers of a small scenario, measured at the same time, and by another tree of the code."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import UsageError
from runtime.lease import CGROUP_ROOT, leases
from testbed.bench import make_run_id
from testbed.duet.players import Players, check_settings, make_part
from testbed.duet.tree import ROOT, find_revision, make_tree
from testbed.images import build_images
from testbed.measures.schedule import PlannedTrial
from testbed.request import Options, Request, check_options
from testbed.results import RunFolder
from testbed.scenario.new import create_scenario
from tests.owned import no_dead_run_left
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.network]

# Other tests keep the host busy, and a trial in which that made the generator of the load late is void.
ATTEMPTS = 3


@pytest.fixture
def nothing_left() -> Iterator[None]:
    with no_dead_run_left():
        yield


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """A duet of a container with itself."""
    (tmp_path / "scenarios").mkdir()
    create_scenario("tiny", tmp_path / "scenarios")
    scenario = str(tmp_path / "scenarios" / "tiny")
    return Options(
        scenario, ("container",), "auto", (), None, True, 1, tmp_path, tmp_path, (), again="container", duet=True
    )


@pytest.fixture
def request_(options: Options) -> Request:
    made = check_options(options, print)
    build_images(made.scenario, print)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "tiny"})


def test_two_containers_are_measured_at_the_same_time(
    options: Options, request_: Request, folder: RunFolder, nothing_left: None
) -> None:
    assert request_.groups == (("container", "container@again"),) and request_.measures == ("start", "utilisation")
    names = request_.platforms
    parts = {name: (ROOT, make_part(name, make_run_id("player"), options, request_, ROOT)) for name in names}
    rates = request_.settings.load.rates_per_s
    with Players(parts, print) as players:
        assert players.records["container@again"]["label"] == "container (again)"
        players.begin(folder)
        starts = players.perform(
            (
                PlannedTrial(1, 1, names[0], "start", beside=names[1]),
                PlannedTrial(2, 1, names[1], "start", beside=names[0]),
            )
        )
        performed = list(starts)
        for block in range(2, 2 + ATTEMPTS):
            first = len(performed) + 1
            loads = players.perform(
                (
                    PlannedTrial(first, block, names[0], "utilisation", rates, beside=names[1]),
                    PlannedTrial(first + len(rates), block, names[1], "utilisation", rates, beside=names[0]),
                )
            )
            performed += loads
            if not any(one.outcome == "void" for one in loads):
                break
    assert [(one.platform, one.beside, one.outcome) for one in starts] == [
        ("container", "container@again", "ok"),
        ("container@again", "container", "ok"),
    ]
    assert all(one.value("ready") for one in starts), [one.reason for one in starts]
    assert [one.outcome for one in loads] == ["ok"] * 2 * len(rates), [one.reason for one in loads]
    assert folder.trials() == tuple(performed)
    for trial in performed:
        assert folder.samples_path(trial) is not None, "a player writes to the run's folder"
        assert not [one for one in trial.disturbances if "container" in one], "the other is no disturbance"
    assert not [name for name in leases() if "player" in name]


def test_a_workload_that_fails_is_recorded_and_the_player_goes_on(
    options: Options, request_: Request, folder: RunFolder, nothing_left: None
) -> None:
    part = make_part("container", make_run_id("player"), options, request_, ROOT)
    (folder.path / "logs").rmdir()
    with Players({"container": (ROOT, part)}, print) as players:
        players.begin(folder)
        (failed,) = players.perform((PlannedTrial(1, 1, "container", "start"),))
        (folder.path / "logs").mkdir()
        (done,) = players.perform((PlannedTrial(2, 2, "container", "start"),))
    assert (failed.outcome, done.outcome) == ("failed", "ok"), (failed.reason, done.reason)


def test_another_tree_measures_with_its_own_code(
    options: Options, request_: Request, folder: RunFolder, tmp_path: Path, nothing_left: None
) -> None:
    """The tree is this revision, with a line that only it says."""
    revision = find_revision("HEAD")
    tree = make_tree(revision, tmp_path / "tree")
    assert all(
        (tree / name).exists() for name in ("testbed/load/generator/testbed-load", "testbed/sampler/testbed-sampler")
    )
    measure = tree / "testbed" / "measures" / "start.py"
    measure.write_text(measure.read_text().replace("ready after", "this tree was ready after"))
    (name,) = revision.name_platforms(("container",))
    lines: list[str] = []
    parts = {
        "container": (ROOT, make_part("container", make_run_id("player"), options, request_, ROOT)),
        name: (tree, make_part(name, make_run_id("player"), options, request_, tree)),
    }
    with Players(parts, lines.append) as players:
        for ready in players.ready.values():
            check_settings(name, request_.settings, ready)
        players.begin(folder)
        for number, platform in enumerate(parts, 1):
            (trial,) = players.perform((PlannedTrial(number, 1, platform, "start"),))
            assert (trial.platform, trial.outcome) == (platform, "ok"), trial.reason
    assert [line for line in lines if "this tree was ready" in line and line.strip().startswith(f"{name}:")]
    assert not [line for line in lines if "this tree was ready" in line and line.strip().startswith("container:")]


def test_what_a_player_refuses_is_told(options: Options, request_: Request, nothing_left: None) -> None:
    part = make_part("container", make_run_id("player"), options, request_, ROOT)
    wrong = {"container": (ROOT, replace(part, base="buster"))}
    with pytest.raises(UsageError, match=r"container: .*buster"), Players(wrong, print):
        pytest.fail("there is no such release")


# A run that is killed while its player waits for orders.
KILLED = """
import os, signal, sys
from pathlib import Path
import msgspec
from testbed.duet.messages import Part
from testbed.duet.players import Players
part = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Part)
with Players({"container": (Path.cwd(), part)}, print):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_player_whose_run_is_killed_takes_down_what_it_started(
    options: Options, request_: Request, tmp_path: Path, nothing_left: None
) -> None:
    lease = make_run_id("player")
    part = tmp_path / "part.json"
    part.write_bytes(msgspec.json.encode(make_part("container", lease, options, request_, ROOT)))
    done = subprocess.run([sys.executable, "-c", KILLED, str(part)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: lease not in leases(), 30)
    assert not Cgroup(f"{CGROUP_ROOT}/{lease}").exists()
