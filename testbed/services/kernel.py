"""What a service is granted of a kernel: settings of its namespaces, and devices of the host."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.config.types import Device
from runtime.config.validate import find_namespace
from runtime.errors import UsageError
from runtime.spec import GrantedDevice
from testbed.compose.model import HostDevice, Service
from testbed.compose.sharing import HOST, find_owner
from testbed.services.sharing import KINDS

# The model's fields by the kinds of namespaces.
_KEYS = {kind: key for key, kind in KINDS.items()}


def require_sysctls(services: Sequence[Service]) -> None:
    """Raise a UsageError that names each setting which belongs to a whole kernel, or would be the host's."""
    wrong = [problem for one in services for name, _ in one.sysctls if (problem := _find_problem(one, name, services))]
    if wrong:
        settable = "net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and kernel.domainname"
        raise UsageError("\n".join(wrong), f"{settable} can be set, in namespaces of a service's own")


def _find_problem(service: Service, name: str, services: Sequence[Service]) -> str:
    kind, named = find_namespace(name), f"{service.name}.sysctls: {name}"
    if not kind:
        return f"{named} belongs to the whole kernel, not to a namespace"
    key = _KEYS[kind]
    mode = getattr(find_owner(service, services, key), key)
    return f"{named} would be set on the host itself ({key}: {mode})" if mode == HOST else ""


def find_devices(service: Service) -> tuple[GrantedDevice, ...]:
    """Return the host's devices that a service is granted, as they are now. Raises UsageError for what is none."""
    return tuple(_find(service.name, one) for one in service.devices)


def _find(service: str, device: HostDevice) -> GrantedDevice:
    try:
        status = Path(device.source).stat()
    except OSError as error:
        raise UsageError(
            f"{service}.devices: {device.source}: {error.strerror}", "name a device of this host"
        ) from error
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise UsageError(f"{service}.devices: {device.source} is no device", "name each device by itself")
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    mode = stat.S_IMODE(status.st_mode)
    return GrantedDevice(Device(device.target, kind, major, minor, mode, status.st_uid, status.st_gid), device.access)
