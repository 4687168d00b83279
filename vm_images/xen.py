"""What the reference machine boots when it is booted under Xen: the hypervisor, and the kernel of domain 0."""

from __future__ import annotations

import gzip
from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.images.model import Image
from vm_images.modules import ModuleTree

# The disk's driver and file systems, what connects containers and guests, what domain 0 reaches Xen by, and the ends of
# its guests' devices. erofs asks for crc32c by name.
MODULES = (
    *("nfit", "nd_pmem", "crc32c_generic", "erofs", "overlay", "bridge", "veth", "loop"),
    *("xen_evtchn", "xen_gntdev", "xen_gntalloc", "xen_privcmd", "xenfs", "xen_blkback", "xen_netback"),
)


def _find_one(image: Image, pattern: str) -> Path:
    found = [path for layer in image.layers for path in sorted(layer.path.glob(pattern))]
    if len(found) != 1:
        raise PrerequisiteError(f"the image {image.reference} has {len(found)} files {pattern}", "report this release")
    return found[0]


def read_hypervisor(image: Image) -> bytes:
    """Return Xen, which the machine boots first. Raises PrerequisiteError when the image has not one."""
    return gzip.decompress(_find_one(image, "boot/xen-4*.gz").read_bytes())


def domain_0_kernel_of(image: Image) -> Path:
    """Return the kernel of domain 0, on this host. Raises PrerequisiteError when the image has not one."""
    return _find_one(image, "usr/lib/dom0/boot/vmlinuz-*")


def read_domain_0_modules(image: Image) -> dict[str, bytes]:
    """Return the modules that domain 0 loads at boot, by file name, in order."""
    return ModuleTree.read(_find_one(image, "usr/lib/dom0/usr/lib/modules/*")).load(MODULES)
