"""This package finds the host's control groups, translates limits into control files and models one cgroup."""

from runtime.cgroups.cgroup import Cgroup, Throttling, sum_throttling
from runtime.cgroups.hierarchy import Hierarchies, hierarchies, require

__all__ = ["Cgroup", "Hierarchies", "Throttling", "hierarchies", "require", "sum_throttling"]
