"""A container's cgroup, made by the client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EACCES, EEXIST, ENOENT, EPERM

from runtime.cgroups import Cgroup
from runtime.cgroups.limits import delegations
from runtime.launcher import StepError
from runtime.oci.caller import Caller
from runtime.plan import steps as s

_TRIES = 20


def make_steps(cgroup: Cgroup) -> tuple[s.Step, ...]:
    """Make the cgroup, without limits, in each hierarchy, with what is missing above it; on v2 those above pass the
    controllers on to it."""
    hierarchies, steps = cgroup.found, list[s.Step]()
    for mount in hierarchies.used:
        path, missing = f"{mount}/{cgroup.name}", list[s.Step]()
        while not os.path.isdir(path):
            missing.append(s.Mkdir(path, tolerate=(EEXIST,)))
            path = os.path.dirname(path)
        steps += reversed(missing)
    if hierarchies.unified and (controllers := hierarchies.v2 & set(hierarchies.wanted)):
        above = cgroup.name.rpartition("/")[0]
        steps += (
            s.Write(str(file), (words,), tolerate=(EACCES, EPERM))  # above what a user was given, that has been done
            for file, words in delegations(hierarchies.unified, above, controllers)
        )
    if "cpuset" in hierarchies.wanted and (cpuset := hierarchies.v1.get("cpuset")):
        steps += _cpuset_steps(str(cpuset), cgroup.name)
    return tuple(steps)


def make_cgroup(cgroup: Cgroup, steps: Sequence[s.Step], caller: Caller) -> None:
    """Have the cgroup made. The end of another container may take an empty parent away in between: then it is tried
    again."""
    for tries in range(_TRIES, 0, -1):
        try:
            caller.perform(*steps)
            return
        except StepError as error:
            if not isinstance(error.failed, s.Mkdir) or error.errno != ENOENT or tries == 1:
                raise
        steps = make_steps(cgroup)


def _cpuset_steps(directory: str, name: str) -> list[s.Step]:
    """A new v1 cpuset has no processors and takes no process: it gets its parent's, from the top."""
    steps = list[s.Step]()
    values = {file: _content(f"{directory}/{file}") for file in ("cpuset.cpus", "cpuset.mems")}
    for part in name.split("/"):
        directory = f"{directory}/{part}"
        for file in values:
            if own := _content(f"{directory}/{file}"):
                values[file] = own
            else:
                steps.append(s.Write(f"{directory}/{file}", (values[file],)))
    return steps


def _content(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
