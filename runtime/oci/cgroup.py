"""Make a container's cgroup through the client."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES, EEXIST, ENOENT, EPERM

from runtime.cgroups import Cgroup
from runtime.launcher import StepError
from runtime.oci.caller import Caller
from runtime.plan import steps as s

_TRIES = 20


def make_steps(cgroup: Cgroup) -> tuple[s.Step, ...]:
    """Return the steps that make the cgroup without limits in each hierarchy, together with its missing ancestors. On
    v2 the ancestors delegate the controllers to it."""
    making = cgroup.plan_making(delegate=False)
    return (
        *(s.Mkdir(str(path), tolerate=(EEXIST,)) for path in making.directories),
        *(s.Write(str(file), (words,), tolerate=(EACCES, EPERM)) for file, words in making.delegations),
        *(s.Write(str(file), (text,)) for file, text in making.cpusets),
    )


def make_cgroup(cgroup: Cgroup, steps: Sequence[s.Step], caller: Caller) -> None:
    """Have the client make the cgroup. Another container that ends meanwhile may remove an empty parent; the steps are
    then planned again and retried."""
    for tries in range(_TRIES, 0, -1):
        try:
            caller.perform(*steps)
            return
        except StepError as error:
            if not isinstance(error.failed, s.Mkdir) or error.errno != ENOENT or tries == 1:
                raise
        steps = make_steps(cgroup)
