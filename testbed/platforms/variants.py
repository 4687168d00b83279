"""The kinds of virtual machine that can be compared, as data: each is a platform by its own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Memory:
    """How the host manages a guest's RAM. All off: what the guest has once touched stays its own.

    ``balloon``: the host can ask the guest to give pages back. ``free_page_reporting``: the guest tells by itself
    which pages are free (needs the balloon device). ``ksm``: the host merges equal pages. ``hugepages``: the RAM is
    backed by the host's reserved huge pages.
    """

    balloon: bool = False
    free_page_reporting: bool = False
    ksm: bool = False
    hugepages: bool = False


@dataclass(frozen=True)
class Disk:
    """How a guest's disk is kept and read.

    ``format``: ``raw`` is the image's file system itself, shared by all guests and read-only, with what the guest
    writes on a tmpfs of its own; ``qcow2`` is a copy-on-write overlay of the guest's own above it. ``cache`` is
    the mode of QEMU's page cache use (``writeback`` is QEMU's default, ``none`` bypasses the host's cache).
    """

    format: Literal["raw", "qcow2"] = "raw"
    cache: Literal["none", "writeback", "unsafe"] = "writeback"
    file_system: Literal["erofs", "ext4"] = "erofs"


@dataclass(frozen=True)
class Variant:
    """A named kind of virtual machine; the defaults are those of ``vm``.

    ``machine`` is libvirt's machine type. ``firmware`` is what QEMU runs first. ``guest_per`` tells how many
    machines a copy of the application gets: one a service, or one for all of them. ``boot``: ``direct`` loads our
    kernel and initial RAM disk, ``cloud`` a stock distribution from its disk. ``inside``: what runs a service in
    the guest, a plain ``process`` or ``containers`` of our own runtime. ``start``: ``cold``, or ``restored`` from
    the saved state of a guest that has booted before. ``uri`` is libvirt's connection.
    """

    name: str
    machine: str = "q35"
    firmware: Literal["seabios", "qboot"] = "seabios"
    guest_per: Literal["service", "application"] = "service"
    boot: Literal["direct", "cloud"] = "direct"
    inside: Literal["process", "containers"] = "process"
    start: Literal["cold", "restored"] = "cold"
    memory: Memory = Memory()
    disk: Disk = Disk()
    uri: str = "qemu:///embed"


def by_name(variants: Iterable[Variant]) -> Mapping[str, Variant]:
    """The variants by their names, in order, read-only. Raises ValueError when two have the same name."""
    found: dict[str, Variant] = {}
    for variant in variants:
        if variant.name in found:
            raise ValueError(f"two kinds of virtual machine are called {variant.name}")
        found[variant.name] = variant
    return MappingProxyType(found)


VARIANTS = by_name(
    (
        Variant("vm"),
        Variant("vm-containers", guest_per="application", inside="containers"),
    )
)
