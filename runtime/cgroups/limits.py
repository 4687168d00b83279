"""The limits of a workload as control files and their values, for cgroup v1 and v2."""

from __future__ import annotations

from pathlib import Path

from runtime.spec import Resources

# What the kernel gives a new cgroup (kernel/sched/fair.c, default_cfs_period), so v1 need not be told: each write there
# makes it walk all cgroups of the host.
CPU_PERIOD_USEC = 100_000


def cpu_quota_usec(cpus: float) -> int:
    """The share of each period that ``cpus`` processors are; at least 1 ms, the kernel's minimum."""
    return max(1000, round(cpus * CPU_PERIOD_USEC))


def v1_files(resources: Resources) -> dict[str, list[tuple[str, str]]]:
    """The files of cgroup v1 and what to write there, by controller."""
    files: dict[str, list[tuple[str, str]]] = {}
    if resources.memory_bytes is not None:
        files["memory"] = [("memory.limit_in_bytes", str(resources.memory_bytes))]
    if resources.cpus is not None:
        files["cpu"] = [("cpu.cfs_quota_us", str(cpu_quota_usec(resources.cpus)))]
    if resources.pids is not None:
        files["pids"] = [("pids.max", str(resources.pids))]
    return files


def v2_files(resources: Resources) -> dict[str, list[tuple[str, str]]]:
    """The files of cgroup v2 and what to write there, by controller."""
    files: dict[str, list[tuple[str, str]]] = {}
    if resources.memory_bytes is not None:
        files["memory"] = [("memory.max", str(resources.memory_bytes))]
    if resources.cpus is not None:
        files["cpu"] = [("cpu.max", f"{cpu_quota_usec(resources.cpus)} {CPU_PERIOD_USEC}")]
    if resources.pids is not None:
        files["pids"] = [("pids.max", str(resources.pids))]
    return files


def delegations(unified: Path, name: str, controllers: frozenset[str]) -> tuple[tuple[Path, str], ...]:
    """The (file, controllers) writes that give the cgroups below ``name`` their controllers, on v2, from the top."""
    path = Path(name)
    delegating = [unified, *(unified / part for part in (*list(path.parents)[-2::-1], path) if str(part) != ".")]
    words = " ".join(f"+{controller}" for controller in sorted(controllers))
    return tuple((cgroup / "cgroup.subtree_control", words) for cgroup in delegating)
