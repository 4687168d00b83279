"""The machines that an experiment can run on, by name."""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import UsageError
from testbed.bench import Finished
from testbed.bench import bench as native
from testbed.machine.reference import NAME as REFERENCE
from testbed.machine.reference import bench as reference
from testbed.request import Options

MACHINES: dict[str, Callable[[Options, Callable[[str], None]], Finished]] = {"native": native, REFERENCE: reference}


def choose_machine(name: str) -> Callable[[Options, Callable[[str], None]], Finished]:
    """Return what runs an experiment on the machine ``name``. Raises UsageError for an unknown one."""
    if name not in MACHINES:
        raise UsageError(f"--machine {name}: there is no such machine", f"known machines: {', '.join(MACHINES)}")
    return MACHINES[name]
