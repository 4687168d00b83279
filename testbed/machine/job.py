"""What the reference machine is to do, and how it tells how that ended."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from testbed.scenario.consolidation import Asked

# In the machine: what it is to do, its scenario, and where it measures.
JOB = Path("/var/lib/testbed/job.json")
SCENARIOS = Path("/var/lib/testbed/scenarios")
RESULTS_FOLDER = Path("/var/lib/testbed/results")
GUEST_KERNEL = Path("/var/lib/testbed/guest-kernel")
# What the machine prints begins so: a line for the person who waits, and its own time in seconds, from time to time.
PROGRESS, TIME = "testbed: progress: ", "testbed: time: "


class Job(Struct, frozen=True):
    """One experiment, as ``testbed.request.Options`` has it; ``scenario`` is a folder of SCENARIOS, ``guest_kernel``
    says whether guests have the kernel at GUEST_KERNEL, ``cap`` or ``steps`` end a density ramp. With ``rungs`` it is a
    run of the ladder over these."""

    scenario: str
    platforms: tuple[str, ...]
    measures: tuple[str, ...]
    trials: int | None
    quick: bool
    seed: int
    cap: int | None
    steps: tuple[int, ...] = ()
    again: str = ""
    emulator_cpus: float = 0.0
    guest_kernel: bool = False
    packed: Asked = Asked()
    rungs: tuple[str, ...] = ()


class Outcome(Struct, frozen=True):
    """How the experiment ended: the run's id in the machine and its exit code, or the error without a run's end."""

    run: str = ""
    exit_code: int = 0
    kind: Literal["", "usage", "prerequisite", "workload", "internal"] = ""
    message: str = ""
    hint: str = ""

    def error(self) -> TestbedError | None:
        """Return the error that ended it outside of a trial, None without one."""
        kinds = {"usage": UsageError, "prerequisite": PrerequisiteError, "workload": WorkloadError}
        return kinds.get(self.kind, TestbedError)(self.message, self.hint) if self.kind else None


def describe_error(error: Exception) -> Outcome:
    """Return the outcome of an experiment that this error ended."""
    kinds = ((UsageError, "usage"), (PrerequisiteError, "prerequisite"), (WorkloadError, "workload"))
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "internal")
    message = error.message if isinstance(error, TestbedError) else f"{type(error).__name__}: {error}"
    hint = error.hint if isinstance(error, TestbedError) else "the machine's console has the traceback"
    return Outcome(exit_code=1, kind=kind, message=message, hint=hint)  # type: ignore[arg-type]
