"""The platforms that a workload can run on, by name: two kinds of container, and every kind of virtual machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtime.errors import UsageError
from testbed.lab import BRIDGE, Lab
from testbed.platforms.protocol import Platform
from testbed.platforms.variants import VARIANTS

NAMES = ("container", *VARIANTS, "libvirt-lxc")


def known(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as given. Raises UsageError for one that is no platform."""
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise UsageError(f"unknown platform {', '.join(unknown) or '(none)'}", f"known platforms: {', '.join(NAMES)}")
    return tuple(dict.fromkeys(names))


def create(name: str, run_id: str, scratch: Path, lab: Lab, connect: str = "") -> Platform:
    """The platform ``name`` for one run, importing only what it needs.

    ``connect`` is the libvirt URI for its virtual machines, empty for their own.
    """
    if name in VARIANTS:
        from testbed.platforms.vm import VmPlatform

        variant = VARIANTS[name]
        return VmPlatform(scratch, BRIDGE, run_id, replace(variant, uri=connect) if connect else variant)
    if name == "libvirt-lxc":
        from testbed.platforms.libvirt_lxc import LibvirtLxcPlatform

        return LibvirtLxcPlatform(scratch, BRIDGE, run_id, lab)
    from testbed.platforms.container import ContainerPlatform

    return ContainerPlatform(run_id, lab)
