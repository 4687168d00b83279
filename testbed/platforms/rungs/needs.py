"""What a host must have for a rung."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.kernel_files import parse_fields
from testbed.rungs.model import Rung

_MOST_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


def check_rung(rung: Rung) -> None:
    """Raise PrerequisiteError for the first wall of a rung of containers that this kernel has no means for."""
    isolation = rung.isolation
    if isolation is None:
        return
    if "user" in isolation.namespaces and not _has_user_namespaces():
        raise PrerequisiteError(
            f"{rung.name}: this kernel lets nobody make a user namespace", f"write 10000 to {_MOST_USER_NAMESPACES}"
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
