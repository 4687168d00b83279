"""A whole run of the ladder: what it goes over, what it ends with, and what an interruption leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from testbed import leftovers
from testbed.lab import Lab
from testbed.ladder.model import HOST, INSTRUCTIONS, Cost, Ladder
from testbed.ladder.store import find_ladder, read_ladder
from testbed.ladder.study import Wishes, choose_exit_code, describe_host, explain_unpressed
from testbed.ladder.targets import choose_targets
from testbed.platforms import registry
from testbed.probes.model import Outcome
from testbed.rungs.model import History
from tests.reports.ladder.records import HISTORY
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
NOTHING = Ladder("x", "", {}, ("a",), ("crun",), (), (), (), ())
STARTED = Cost("a", "start_s", (0.1,)), Cost("crun", "start_s", (0.1,))
# As little as is a whole run: the container of ours, with each kind of trial once.
RUN = """
import sys
from pathlib import Path
from msgspec.structs import replace
from testbed.interruption import raise_on_signals
from testbed.ladder import costs, study
from testbed.progress import print_progress
from tests.reports.ladder.records import HISTORY

costs.QUICK = costs.Effort(trials=1, loads=1, ramps=1, calls=1000, forks=2, load_s=0.1, most_copies=4, rounds=1)
rungs = tuple(replace(one, forbids=(), permits=()) for one in HISTORY.rungs if one.name in ("container", "cp-67"))
wishes = study.Wishes(Path(sys.argv[1]), Path("scenarios"), quick=True, share=True)
with raise_on_signals():
    sys.exit(study.run_ladder(wishes, replace(HISTORY, rungs=rungs), print_progress).exit_code)
"""


def tell(line: str) -> None:
    pass


def test_targets_are_rungs_by_year_and_what_stands_beside_them() -> None:
    targets, missing = choose_targets(HISTORY, (), ("container", "chroot"), tell)
    years = [one.rung.year for one in targets if one.rung is not None]
    assert targets[0].name == "process" and years == sorted(years) and targets[-1].name == "chroot"
    assert [one.platform for one in targets].count("container") == 1
    assert "paravirtual-2003" in {one.rung for one in missing}
    assert "cp-67" not in {one.rung for one in missing}, "it is told of, and nothing of it runs"


@pytest.mark.parametrize(
    ("rungs", "said"),
    [(("gaol",), "no such rung"), (("cp-67",), "told of"), (("process", "process"), "named twice")],
)
def test_a_name_that_is_none_is_refused(rungs: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_targets(HISTORY, rungs, (), tell)


def test_what_was_asked_for_and_is_not_there_is_an_error() -> None:
    with pytest.raises(PrerequisiteError, match="paravirtual-2003 cannot be run here"):
        choose_targets(HISTORY, ("process", "paravirtual-2003"), (), tell)
    with pytest.raises(PrerequisiteError, match="no rung of the ladder"):
        choose_targets(History(tuple(one for one in HISTORY.rungs if one.name == "cp-67")), (), (), tell)


def test_the_exit_code_is_that_of_the_worst() -> None:
    assert choose_exit_code(replace(NOTHING, costs=STARTED)) == 0
    assert choose_exit_code(replace(NOTHING, costs=STARTED[:1])) == 6, "one never worked"
    leaked = Outcome("a", "p", "leaked", "forbidden")
    assert choose_exit_code(replace(NOTHING, outcomes=(leaked,))) == 3
    permitted = Outcome("crun", "p", "permitted", "unsaid")
    assert choose_exit_code(replace(NOTHING, costs=STARTED[:1], outcomes=(permitted,))) == 0


def test_a_host_is_described_as_far_as_it_is_known() -> None:
    facts = {"kernel": "6.1", "cpu": {"model": "Some", "processors": 2}, "memory": {"total_bytes": 3 << 29}}
    described = {"kernel": "6.1", "processor": "Some", "processors": "2", "memory": "1.5 GiB"}
    assert describe_host(facts) == described and describe_host({}) == {}


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ("container", ""),
        ("vm-restored", "saved first"),
        ("paravirtual-2003", "none has all of these"),
        ("virtualbox", "none has all of these"),
    ],
)
def test_who_is_not_put_under_pressure_says_why(platform: str, said: str, tmp_path: Path) -> None:
    one = registry.create(platform, "run", tmp_path, Lab(), "kvm")
    for clock in (HOST, INSTRUCTIONS):
        why = explain_unpressed(one, Wishes(tmp_path, tmp_path, quick=True, clock=clock))
        assert said in why and bool(why) == bool(said)


def begin(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(out)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.root
def test_a_whole_run_has_everything_on_record_and_leaves_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    _, told = run.communicate(timeout=200)
    assert run.returncode == 0, told
    ladder = read_ladder(find_ladder("", tmp_path))
    assert ladder.rungs == ("container",) and len(ladder.snippets) == 2
    # The settings that probes try to change are the host's: an attack of somebody else's meanwhile keeps them.
    beside = any("another run has changed it" in one.why for one in ladder.missing)
    assert len(ladder.outcomes) > 80 or beside, told
    assert {one.metric for one in ladder.costs} >= {"start_s", "memory_bytes", "syscall_ns", "requests_per_s"}
    assert {one.rung for one in ladder.steps} == {"", "container"} and ladder.took_s > 0
    assert [one for one in leftovers.find() if one.run == ladder.id] == []


@pytest.mark.root
def test_an_interruption_leaves_a_record_and_nothing_else(tmp_path: Path) -> None:
    run = begin(tmp_path)
    try:
        until(lambda: any(tmp_path.glob("*/ladder.json")), 200, run.poll)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode not in (0, -signal.SIGKILL)
    ladder = read_ladder(find_ladder("", tmp_path))
    assert ladder.rungs == ("container",)
    assert [one for one in leftovers.find() if one.run == ladder.id] == []
