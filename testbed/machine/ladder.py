"""A run of the ladder in the reference machine: both histories on one axis, that of instruction time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from testbed.host.facts import read_source
from testbed.interruption import Undo
from testbed.ladder.model import FILE, Missing
from testbed.ladder.store import encode_results, read_ladder, write_ladder
from testbed.ladder.study import SCENARIO, Finished, Wishes, begin, choose_exit_code
from testbed.ladder.targets import find_runnable
from testbed.machine.emulation import emulate
from testbed.machine.inputs import inputs, read_qemu_version, require_room
from testbed.machine.job import Job
from testbed.machine.reference import describe_machine, hand_over
from testbed.machine.systems import list_absent
from testbed.platforms.hypervisors import HYPERVISORS
from testbed.rungs.model import History, Rung

_CONSOLE = "machine.log"
_WHY = "the reference machine has no such hypervisor"


def run_ladder(wishes: Wishes, history: History, progress: Callable[[str], None]) -> Finished:
    """Run the ladder in the reference machine; parameters, result and errors are ``testbed.ladder.study.run_ladder``'s.

    It is a quick run there: nothing varies. Raises UsageError also for platforms beside the rungs, PrerequisiteError
    for a rung that the machine has not and without room for it, and WorkloadError with its console's last lines when it
    does not power off by itself.
    """
    if wishes.platforms:
        raise UsageError("--platforms: in the reference machine the ladder has its rungs only", "leave it out")
    rungs, missing = choose_rungs(find_runnable(history, wishes.rungs), bool(wishes.rungs))
    require_room()
    with Undo() as undo:
        run_id, scratch, scenario, images = begin(undo, wishes, missing, progress)
        job = describe_job(rungs, wishes.seed)
        made = undo.enter_context(inputs(job, scenario.folder, images, run_id, progress))
        progress(f"reference machine: {made.digest[:16]}; its time comes first in each line")
        emulated = emulate(made, run_id, scratch / "console", scratch / "results", progress)
        taken = hand_over(scratch)
        inside = read_ladder(taken)
        results = {FILE: hashlib.sha256(encode_results(inside)).hexdigest()}
        made_of = {"scenario": SCENARIO, "base": "", "guest_kernel": ""}
        where = f"the reference machine {made.digest[:16]}, {read_qemu_version(made.emulator)}"
        ladder = replace(
            inside,
            id=run_id,
            host={"machine": where, **inside.host},
            missing=(*missing, *inside.missing),
            took_s=round(emulated.real_s, 3),
            source=read_source(),
            machine=describe_machine(job, made_of, made, results, emulated),
        )
        folder = wishes.out / run_id
        shutil.copytree(taken / "logs", folder / "logs")
        shutil.copyfile(scratch / "console", folder / "logs" / _CONSOLE)
        write_ladder(folder, ladder)
        progress(f"run folder: {folder}")
        return Finished(folder, ladder, choose_exit_code(ladder))


def choose_rungs(rungs: Sequence[Rung], is_asked: bool) -> tuple[tuple[Rung, ...], tuple[Missing, ...]]:
    """Return which of the rungs the machine has, and which not. Raises PrerequisiteError for one of those that was
    asked for by name."""
    asked = tuple(map(find_platform, rungs)) if is_asked else ()
    absent = {**list_absent(asked), **dict.fromkeys(HYPERVISORS, _WHY)}
    missing = tuple(Missing(one.name, absent[find_platform(one)]) for one in rungs if find_platform(one) in absent)
    if missing and is_asked:
        what = f"{missing[0].rung} cannot be run there: {missing[0].why}"
        raise PrerequisiteError(what, "leave it out, or run it on this host")
    return tuple(one for one in rungs if find_platform(one) not in absent), missing


def find_platform(rung: Rung) -> str:
    """Return the platform that stands for a rung."""
    return rung.platform or rung.name


def describe_job(rungs: Sequence[Rung], seed: int) -> Job:
    """Return what the machine is to do."""
    return Job(
        scenario=SCENARIO,
        platforms=tuple(dict.fromkeys(map(find_platform, rungs))),
        measures=(),
        trials=None,
        quick=True,
        seed=seed,
        cap=None,
        rungs=tuple(one.name for one in rungs),
    )
