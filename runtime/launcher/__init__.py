"""Starts plans: a typed door to the C launcher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import TestbedError
from runtime.plan.encode import encode
from runtime.plan.explain import describe
from runtime.plan.steps import Plan

STATIC_BINARY = Path(__file__).resolve().parent / "testbed-launcher"


@dataclass(frozen=True)
class Spawned:
    """A started child: ``pid``, an open ``pidfd``, and when it was cloned and had executed (CLOCK_MONOTONIC)."""

    pid: int
    pidfd: int
    cloned_ns: int
    executed_ns: int


class StepError(TestbedError):
    """A step of a plan failed: its ``step`` (index; -1 the clone itself), and the kernel's ``errno``."""

    def __init__(self, plan: Plan, step: int, errno: int) -> None:
        self.step = step
        self.errno = errno
        what = describe(list(plan.steps())[step]) if step >= 0 else "clone the first process"
        super().__init__(f"step {step}: {what}: {os.strerror(errno)}" if step >= 0 else f"{what}: {os.strerror(errno)}")


def launch(plan: Plan, *, stdin: int, stdout: int, stderr: int) -> Spawned:
    """Perform ``plan``; return when its child has executed the workload.

    The three descriptors become the child's standard ones. Raises StepError when a step fails; then no
    child is left, but what the parent's steps made is for the caller to undo.
    """
    from runtime.launcher import _launcher

    pid, second, third, cloned_ns, executed_ns = _launcher.launch(encode(plan), stdin, stdout, stderr)
    if pid < 0:
        raise StepError(plan, second, third)
    return Spawned(pid, second, cloned_ns, executed_ns)
