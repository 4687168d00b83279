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


def require_sysctls(services: Sequence[Service]) -> None:
    """Raise a UsageError that names each setting which belongs to a whole kernel."""
    wrong = [f"{one.name}.sysctls: {name}" for one in services for name, _ in one.sysctls if not find_namespace(name)]
    if wrong:
        raise UsageError(
            "\n".join(f"{named} belongs to the whole kernel, not to a namespace" for named in wrong),
            "net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and kernel.domainname can be set",
        )


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
