"""Control groups: which the host has, what limits are in their files, and one cgroup as an object."""

from runtime.cgroups.cgroup import Cgroup
from runtime.cgroups.hierarchy import Hierarchies, hierarchies, require

__all__ = ["Cgroup", "Hierarchies", "hierarchies", "require"]
