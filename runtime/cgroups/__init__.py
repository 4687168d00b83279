"""Control groups: which the host has, limits as plan steps, and one cgroup as an object."""

from runtime.cgroups.cgroup import Cgroup
from runtime.cgroups.hierarchy import Hierarchies, hierarchies, require
from runtime.cgroups.limits import create_steps, join_in_two, join_steps, limit_steps

__all__ = [
    "Cgroup",
    "Hierarchies",
    "create_steps",
    "hierarchies",
    "join_in_two",
    "join_steps",
    "limit_steps",
    "require",
]
