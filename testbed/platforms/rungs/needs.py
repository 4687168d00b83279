"""What a host must have for a rung."""

from __future__ import annotations

from pathlib import Path

from runtime.cgroups import hierarchies
from runtime.errors import PrerequisiteError
from runtime.kernel_files import parse_fields
from testbed.platforms.rungs.landlock import find_version
from testbed.rungs.model import Isolation, Rung

_TIME_NAMESPACE = Path("/proc/self/ns/time")
_MOST_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


def check_rung(rung: Rung) -> None:
    """Raise PrerequisiteError for the first wall of a rung of containers that this kernel has no means for."""
    if rung.isolation is not None:
        check_isolation(rung.name, rung.isolation)


def check_isolation(name: str, isolation: Isolation) -> None:
    """Raise PrerequisiteError for the first part of an isolation that this host has no means for."""
    if isolation.network == "address" and hierarchies().unified is None:
        raise PrerequisiteError(
            f"{name}: one address of the host's stack is held by programs of cgroup v2, which is not mounted here",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    if "user" in isolation.namespaces and not _has_user_namespaces():
        raise PrerequisiteError(
            f"{name}: this kernel lets nobody make a user namespace", f"write 10000 to {_MOST_USER_NAMESPACES}"
        )
    if "time" in isolation.namespaces and not _TIME_NAMESPACE.exists():
        raise PrerequisiteError(f"{name}: this kernel has no time namespaces", "use Linux 5.6 or later")
    if isolation.landlock and not find_version():
        raise PrerequisiteError(
            f"{name}: this kernel has no Landlock, or it is switched off",
            "use Linux 5.13 or later, with landlock among its security modules (the kernel's parameter lsm=)",
        )


def own_capabilities() -> int:
    """Return the mask of the capabilities that we can give to others: a root that is itself confined may lack some."""
    fields = parse_fields(Path("/proc/self/status").read_text())
    return int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16)


def _has_user_namespaces() -> bool:
    try:
        return int(_MOST_USER_NAMESPACES.read_text()) > 0
    except (OSError, ValueError):
        return False
