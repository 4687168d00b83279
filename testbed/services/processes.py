"""Which process a service executes: its image's, with what its file says of user, directory, rights and limits."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec.structs import replace

from runtime.config.validate import held_capabilities
from runtime.errors import UsageError
from runtime.images.model import Healthcheck as ImageHealthcheck
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.plan.constants import CAPABILITIES
from runtime.spec import Process, Rlimit
from testbed.compose.model import Healthcheck, Service, Ulimit

# What reaps orphans and passes signals on before a service that has ``init``: Debian's package tini, and where Docker
# puts its own.
INIT, INIT_TARGET = "/usr/bin/tini-static", "/sbin/docker-init"
_UNLIMITED = 2**64 - 1  # RLIM_INFINITY
_EVERY = "ALL"


def make_process(service: Service, image: Image) -> Process:
    """Return the process. Raises UsageError for a user or group that the image lacks, or an unknown capability.

    A privileged one has the capabilities that this process has: on a host that is itself confined, not all.
    """
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
        capabilities=choose_capabilities(service, process.capabilities, held_capabilities(os.getpid())),
        rlimits=merge_limits(process.rlimits, service.ulimits),
        no_new_privileges=allowed,
    )


def complete(service: Service, image: Image) -> Service:
    """Return a service with its image's own health check and stop signal, where its file says nothing of them."""
    check, own = service.healthcheck, image.config.healthcheck
    if own is not None and (check is None or (check.test is None and not check.disabled)):
        check = _read_check(own.test, check or _times_of(own))
    return replace(service, healthcheck=check, stop_signal=service.stop_signal or image.config.stop_signal)


def _times_of(own: ImageHealthcheck) -> Healthcheck:
    """Return how often an image's check is made; 0 means what is usual."""
    usual = Healthcheck()
    return Healthcheck(
        interval_s=own.interval_ns / 1e9 or usual.interval_s,
        timeout_s=own.timeout_ns / 1e9 or usual.timeout_s,
        retries=own.retries or usual.retries,
        start_period_s=own.start_period_ns / 1e9,
        start_interval_s=own.start_interval_ns / 1e9 or usual.start_interval_s,
    )


def _read_check(test: Sequence[str], times: Healthcheck) -> Healthcheck:
    """Return the check of an image's words (Docker's image specification 1.2, "Healthcheck")."""
    kind, *words = test or ("NONE",)
    if kind == "CMD" and words:
        return replace(times, test=tuple(words))
    if kind == "CMD-SHELL" and words:
        return replace(times, test=("/bin/sh", "-c", *words))
    return replace(times, disabled=True)


def choose_capabilities(service: Service, usual: Sequence[str], held: int) -> tuple[str, ...]:
    """Return the capabilities that a service can have: the usual ones without those that are dropped, and those that
    are added; a privileged one, and one with ALL of them, has those that are ``held`` (a mask)."""
    every = tuple(name for number, name in enumerate(CAPABILITIES) if held >> number & 1)
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
