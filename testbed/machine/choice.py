"""The machines that an experiment can run on, by name."""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import UsageError
from testbed.bench import Finished
from testbed.bench import bench as native
from testbed.ladder import study
from testbed.machine import ladder
from testbed.machine.reference import NAME as REFERENCE
from testbed.machine.reference import bench as reference
from testbed.request import Options
from testbed.rungs.model import History

Experiment = Callable[[Options, Callable[[str], None]], Finished]
Climb = Callable[[study.Wishes, History, Callable[[str], None]], study.Finished]
_BENCHES: dict[str, Experiment] = {"native": native, REFERENCE: reference}
_LADDERS: dict[str, Climb] = {"native": study.run_ladder, REFERENCE: ladder.run_ladder}


def choose_machine(name: str) -> Experiment:
    """Return what runs an experiment on the machine ``name``. Raises UsageError for an unknown one."""
    check_machine(name)
    return _BENCHES[name]


def choose_ladder(name: str) -> Climb:
    """Return what runs the ladder on the machine ``name``. Raises UsageError for an unknown one."""
    check_machine(name)
    return _LADDERS[name]


def check_machine(name: str) -> None:
    """Raise UsageError for a machine that is not known."""
    if name not in _BENCHES:
        raise UsageError(f"--machine {name}: there is no such machine", f"known machines: {', '.join(_BENCHES)}")
