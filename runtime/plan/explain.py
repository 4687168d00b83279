"""Format plans as the text that a reader sees with ``--explain``."""

from __future__ import annotations

from errno import errorcode

from runtime.plan.constants import CLONE_FLAGS, CLONE_NEWPID
from runtime.plan.steps import Chdir, Plan, purposes
from runtime.plan.steps.words import flag_names


def explain(plan: Plan) -> str:
    """Format the whole plan, one line for each step, under the purposes that the steps serve; the clone stands where
    the child begins."""
    lines: list[str] = []
    purpose = ""
    for index, step in enumerate(plan.steps()):
        if index == len(plan.parent) and plan.clone_flags:
            into = f" into {plan.into_cgroup}" if plan.into_cgroup else ""
            purpose = purposes.CLONE if plan.clone_flags & CLONE_NEWPID else purposes.NAMESPACE
            lines += [f"# {purpose}", f"     clone3 {flag_names(plan.clone_flags, CLONE_FLAGS)}{into}"]
        reason = purpose if step == Chdir("/") else step.reason()  # it continues whatever came before
        if reason != purpose:
            purpose = reason
            lines.append(f"# {purpose}")
        tolerated = ", ".join(errorcode[number] for number in step.tolerate)
        lines.append(f"{index:3}  {step.describe()}" + (f"  [{tolerated} is fine]" if tolerated else ""))
    return "\n".join(lines)
