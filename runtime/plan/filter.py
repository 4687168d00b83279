"""The filter of system calls that stands before a workload, wherever it runs: in a container or in a guest."""

from __future__ import annotations

from functools import cache

from runtime.plan.steps import SeccompFilter, Step
from runtime.seccomp.default import default_profile
from runtime.seccomp.filter import compile_filter
from runtime.spec import Spec


@cache
def _default(capabilities: tuple[str, ...]) -> Step:
    compiled = compile_filter(default_profile(capabilities))
    return SeccompFilter(compiled.program, compiled.flags, "(the default profile)")


def filter_steps(spec: Spec) -> tuple[Step, ...]:
    """The default profile, unless the spec goes without; to be performed last before the workload's execve.

    A process that may gain privileges by an execve has none: the kernel takes filters from those only who gave that up.
    Raises PrerequisiteError without libseccomp.
    """
    if not (spec.seccomp and spec.process.no_new_privileges):
        return ()
    return (_default(spec.process.capabilities),)
