"""Which process a service executes: its image's, with what its file says of user, directory, rights and limits."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.plan.constants import CAPABILITIES
from runtime.spec import Process, Rlimit
from testbed.compose.model import Service, Ulimit

# What reaps orphans and passes signals on before a service that has ``init``: Debian's package tini, and where Docker
# puts its own.
INIT, INIT_TARGET = "/usr/bin/tini-static", "/sbin/docker-init"
_UNLIMITED = 2**64 - 1  # RLIM_INFINITY
_EVERY = "ALL"


def make_process(service: Service, image: Image) -> Process:
    """Return the process. Raises UsageError for a user or group that the image lacks, or an unknown capability."""
    process = image_process(
        image,
        command=service.command,
        entrypoint=service.entrypoint,
        environment=dict(service.environment),
        user=service.user,
        groups=service.groups,
        working_dir=service.working_dir,
    )
    allowed = process.no_new_privileges if service.no_new_privileges is None else service.no_new_privileges
    return replace(
        process,
        args=(INIT_TARGET, "--", *process.args) if service.init else process.args,
        capabilities=choose_capabilities(service, process.capabilities),
        rlimits=merge_limits(process.rlimits, service.ulimits),
        no_new_privileges=allowed,
    )


def choose_capabilities(service: Service, usual: Sequence[str]) -> tuple[str, ...]:
    """Return the capabilities that a service can have: the usual ones without those that are dropped, and those that
    are added; a privileged one has all."""
    every = tuple(CAPABILITIES)
    if service.privileged:
        return every
    added = [_capability(service, name) for name in service.cap_add]
    dropped = [_capability(service, name) for name in service.cap_drop]
    chosen = every if _EVERY in added else tuple(usual)
    chosen = () if _EVERY in dropped else tuple(name for name in chosen if name not in dropped)
    return tuple(dict.fromkeys((*chosen, *(name for name in added if name != _EVERY))))


def _capability(service: Service, name: str) -> str:
    """Return a capability by the kernel's name, or ALL."""
    upper = name.upper()
    if upper in (_EVERY, f"CAP_{_EVERY}"):
        return _EVERY
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in CAPABILITIES:
        raise UsageError(f"{service.name}: unknown capability {name!r}", "as capabilities(7) has them, NET_ADMIN")
    return full


def merge_limits(usual: Sequence[Rlimit], own: Sequence[Ulimit]) -> tuple[Rlimit, ...]:
    """Return the resource limits: the usual ones, with a service's own in their place and beside them."""
    limits = {limit.type: limit for limit in usual}
    for one in own:
        kind = f"RLIMIT_{one.name.upper()}"
        soft, hard = (_UNLIMITED if value < 0 else value for value in (one.soft, one.hard))
        limits[kind] = Rlimit(kind, soft, hard)
    return tuple(limits.values())
