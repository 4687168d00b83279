"""The ladder in the reference machine: what it goes over there, what the machine is told, and what it hands over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from testbed.ladder.model import INSTRUCTIONS
from testbed.ladder.store import read_ladder, write_ladder
from testbed.ladder.study import Wishes
from testbed.ladder.targets import find_runnable
from testbed.machine.choice import choose_ladder
from testbed.machine.emulator import RESULTS_BYTES
from testbed.machine.handover import pack
from testbed.machine.job import Job, Outcome
from testbed.machine.ladder import choose_rungs, describe_job, run_ladder
from testbed.machine.reference import hand_over
from testbed.machine.systems import choose_system
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.rungs.read import read_history
from tests.reports.ladder.records import make_ladder

HISTORY = read_history()


def test_both_histories_are_there_but_for_what_needs_more_than_the_machine_has() -> None:
    rungs, missing = choose_rungs(find_runnable(HISTORY, ()), is_asked=False)
    names = {one.name for one in rungs}
    assert {"process", "chroot-1982", "docker-2013", "container", "sandboxed", "hardware-2006", "micro-2018"} <= names
    others = {one.rung: one.why for one in missing}
    assert {"emulated-1988", "paravirtual-2003"} <= others.keys() and not names & others.keys()
    assert "booted under Xen" in others["paravirtual-2003"] and "would itself be translated" in others["emulated-1988"]
    assert all(others.values())


def test_a_guest_of_xens_that_is_asked_for_is_there_and_kvm_is_not() -> None:
    rungs, missing = choose_rungs(find_runnable(HISTORY, ("process", PARAVIRTUAL)), is_asked=True)
    assert [one.name for one in rungs] == ["process", PARAVIRTUAL] and not missing
    assert choose_system(describe_job(rungs, seed=1).platforms) == "xen"
    with pytest.raises(PrerequisiteError, match=r"hardware-2006 cannot be run there: it needs .* with KVM"):
        choose_rungs(find_runnable(HISTORY, (PARAVIRTUAL, "hardware-2006")), is_asked=True)


def test_a_rung_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="emulated-1988 cannot be run there"):
        choose_rungs(find_runnable(HISTORY, ("process", "emulated-1988")), is_asked=True)
    with pytest.raises(UsageError, match="--platforms"):
        run_ladder(Wishes(tmp_path, tmp_path, platforms=("crun",)), HISTORY, print)
    with pytest.raises(UsageError, match="there is no such machine"):
        choose_ladder("abacus")


def test_the_machine_is_told_which_rungs_and_has_what_their_machines_need() -> None:
    job = describe_job(find_runnable(HISTORY, ("process", "micro-2018", "restored")), seed=7)
    assert job.rungs == ("process", "micro-2018", "restored") and job.seed == 7 and job.quick
    assert set(job.platforms) == {"process", "vm-micro", "vm-restored"}
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


def test_its_record_comes_back_with_its_clock(tmp_path: Path) -> None:
    ladder = make_ladder()
    counted = replace(ladder, costs=tuple(replace(one, clock=INSTRUCTIONS) for one in ladder.costs))
    run = tmp_path / "inside"
    (run / "logs").mkdir(parents=True)
    write_ladder(run, counted)
    with (tmp_path / "results").open("wb") as target:
        pack(Outcome("inside", 3), run, target, RESULTS_BYTES)
    assert read_ladder(hand_over(tmp_path)) == counted
    assert (tmp_path / "taken" / "run" / "logs").is_dir()


def test_what_ended_it_inside_is_the_error_and_nothing_is_said_as_such(tmp_path: Path) -> None:
    with (tmp_path / "results").open("wb") as target:
        pack(Outcome(kind="prerequisite", message="no cgroups", hint="mount them"), None, target, RESULTS_BYTES)
    with pytest.raises(PrerequisiteError, match="no cgroups"):
        hand_over(tmp_path)
    (tmp_path / "results").write_bytes(bytes(1 << 16))
    (tmp_path / "console").write_text("panic: no init\n")
    with pytest.raises(WorkloadError, match="without results") as caught:
        hand_over(tmp_path)
    assert "panic: no init" in caught.value.hint
