"""Finds the kernel modules that a guest needs, and their order, in the modules themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from msgspec import Struct

from runtime.errors import PrerequisiteError
from vm_images.compression import decompress

# Buses, disk, its file system, the writable layer's file system, network card.
GUEST_MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "erofs", "overlay", "virtio_net")
# What a guest needs besides to give memory back: the balloon, free page reporting.
BALLOON_MODULES = ("virtio_balloon",)
# What a guest needs besides to be told to execute commands: a port.
PORT_MODULES = ("virtio_console",)
# What a guest needs besides to mount directories of the host. 9p would be another way, but Debian's kernel for virtual
# machines is built without it (CONFIG_NET_9P).
SHARE_MODULES = ("virtiofs",)
# What a guest needs besides when it is a host of containers: their network.
HOST_MODULES = ("bridge", "veth")
# What a guest of Xen's needs in place of GUEST_MODULES: its disk, file systems and network card.
XEN_MODULES = ("xen_blkfront", "erofs", "overlay", "xen_netfront")
# And a guest of VirtualBox's, whose disk of the virtio kind is a SCSI one.
SCSI_MODULES = ("virtio_pci", "sd_mod", "virtio_scsi", "erofs", "overlay", "virtio_net")


def bus_modules(names: Iterable[str], bus: str) -> tuple[str, ...]:
    """Return those of a guest's modules that a machine with devices on ``bus``, ``pci`` or ``mmio``, needs: one has not
    both."""
    others = {"pci": "virtio_mmio", "mmio": "virtio_pci"}[bus]
    return tuple(name for name in names if not name.startswith(others))


def module_name(path: str) -> str:
    """Return the module's name as the kernel knows it: ``kernel/drivers/hw/virtio-rng.ko.xz`` is ``virtio_rng``."""
    return PurePosixPath(path).name.split(".ko", 1)[0].replace("-", "_")


def parse_needed_modules(module: bytes) -> tuple[str, ...]:
    """Return the names of the modules that one needs, from the ``depends=`` string of its .modinfo section.

    Packages ship no modules.dep (depmod writes it at installation), so the modules themselves are asked.
    """
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    names = match.group(1).decode().split(",") if match else []
    return tuple(name.replace("-", "_") for name in names if name)


def order_modules(
    wanted: Iterable[str], depends: Callable[[str], Iterable[str]], builtin: Collection[str]
) -> tuple[str, ...]:
    """Return the names of the modules to load, each after all it needs; those built into the kernel are left out."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order or name in builtin:
            return
        for needed in depends(name):
            visit(needed)
        order[name] = None

    for name in wanted:
        visit(name)
    return tuple(order)


class ModuleTree(Struct, frozen=True):
    """The modules of an unpacked kernel package: ``files`` by module name, and the names of the built-in ones."""

    files: Mapping[str, Path]
    builtin: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> ModuleTree:
        """Read ``lib/modules/<release>``."""
        files = {module_name(str(path)): path for path in sorted(folder.rglob("*.ko*"))}
        builtin = folder / "modules.builtin"
        names = builtin.read_text().split() if builtin.exists() else []
        return cls(files, frozenset(module_name(name) for name in names))

    def has(self, wanted: Iterable[str]) -> bool:
        """Return whether the kernel has all these modules, built in or not."""
        return all(name in self.files or name in self.builtin for name in wanted)

    def load(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """Return the plain files to load for the wanted modules, by file name, in order of loading.

        Raises PrerequisiteError for a module that the kernel does not have at all.
        """
        data: dict[str, bytes] = {}

        def depends(name: str) -> tuple[str, ...]:
            if name not in self.files:
                raise PrerequisiteError(f"the guest kernel has no module {name}", "choose another kernel package")
            data[name] = read_plain_module(self.files[name])
            return parse_needed_modules(data[name])

        order = order_modules(wanted, depends, self.builtin)
        return {f"{name}.ko": data[name] for name in order}


def read_plain_module(path: Path) -> bytes:
    """Return the module's ELF file, uncompressed: a guest under emulation should not pay for xz or zstd."""
    data = decompress(path.read_bytes(), str(path))
    if not data.startswith(b"\x7fELF"):
        raise PrerequisiteError(f"{path} is not a kernel module: it starts with {data[:4].hex()}")
    return data
