"""What the reference machine boots with VirtualBox in KVM's place: a kernel with the modules that were built for it."""

from __future__ import annotations

from pathlib import Path

from runtime.images.model import Image
from vm_images.modules import ModuleTree
from vm_images.reference import kernel_of

# The disk's driver and file systems, what connects containers and machines, VirtualBox, and its bridge to a card.
MODULES = ("nfit", "nd_pmem", "erofs", "overlay", "tun", "bridge", "veth", "vboxdrv", "vboxnetflt")
_FOLDER = "usr/lib/virtualbox-kernel"


def virtualbox_kernel_of(image: Image) -> Path:
    """Return the kernel, on this host. Raises PrerequisiteError when the image has not one."""
    return kernel_of(image, _FOLDER)[0]


def read_virtualbox_modules(image: Image) -> dict[str, bytes]:
    """Return the modules that this kernel loads at boot, by file name, in order."""
    return ModuleTree.read(kernel_of(image, _FOLDER)[1]).load(MODULES)
