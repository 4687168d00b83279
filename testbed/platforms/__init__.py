"""The platforms that a workload can run on, by name: containers, and every kind of virtual machine."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UsageError
from testbed.lab import BRIDGE, Lab
from testbed.platforms.protocol import Platform
from testbed.platforms.variants import VARIANTS

NAMES = ("container", *VARIANTS)


def known(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as given. Raises UsageError for one that is no platform."""
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise UsageError(f"unknown platform {', '.join(unknown) or '(none)'}", f"known platforms: {', '.join(NAMES)}")
    return tuple(dict.fromkeys(names))


def create(name: str, run_id: str, scratch: Path, lab: Lab, accelerator: str = "auto") -> Platform:
    """The platform ``name`` for one run, importing only what it needs; ``accelerator`` is for virtual machines."""
    if name in VARIANTS and VARIANTS[name].boot == "cloud":
        from testbed.platforms.cloud import CloudPlatform

        return CloudPlatform(scratch, BRIDGE, run_id, VARIANTS[name], accelerator)
    if name in VARIANTS and VARIANTS[name].inside == "containers":
        from testbed.platforms.nested import ContainersInVmPlatform

        return ContainersInVmPlatform(scratch, BRIDGE, run_id, VARIANTS[name], accelerator)
    if name in VARIANTS:
        from testbed.platforms.restored import RestoredPlatform
        from testbed.platforms.vm import VmPlatform

        if VARIANTS[name].start == "restored":
            return RestoredPlatform(scratch, BRIDGE, run_id, VARIANTS[name], accelerator)
        return VmPlatform(scratch, BRIDGE, run_id, VARIANTS[name], accelerator)
    from testbed.platforms.container import ContainerPlatform

    return ContainerPlatform(run_id, lab)
