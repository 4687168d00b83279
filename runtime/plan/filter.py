"""The filter of system calls that stands before a workload, wherever it runs: in a container or in a guest."""

from __future__ import annotations

from functools import cache

from runtime.plan.process import process_steps
from runtime.plan.steps import SeccompFilter, Step
from runtime.seccomp.default import default_profile
from runtime.seccomp.filter import compile_filter
from runtime.spec import Spec


@cache
def _default(capabilities: tuple[str, ...]) -> Step:
    compiled = compile_filter(default_profile(capabilities))
    return SeccompFilter(compiled.program, compiled.flags, "(the default profile)")


def confined_steps(spec: Spec, *last: Step) -> tuple[Step, ...]:
    """A process's surroundings and privileges, ``last``, and the default profile, unless the spec goes without.

    The kernel takes a filter from who has CAP_SYS_ADMIN or has given up gaining privileges by an execve (seccomp(2)):
    it is performed last where the process has no_new_privs, and otherwise before its privileges go. Raises
    PrerequisiteError without libseccomp.
    """
    process = spec.process
    filters = (_default(process.capabilities),) if spec.seccomp else ()
    if process.no_new_privileges:
        return (*process_steps(process), *last, *filters)
    return (*filters, *process_steps(process), *last)
