"""Virtual machines as most people have them: a stock Debian that boots from its disk and is set up by cloud-init.

All else is ``vm``'s: libvirt, QEMU's machine and cgroup, the disk of the image's layers, the console. What runs a
service in the guest is the same launcher, as a systemd unit's command.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from runtime import atomic
from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.releases import RELEASES
from runtime.launcher import STATIC_BINARY
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.progress import print_progress
from testbed.qemu.cloud_domain import LEAST_MEMORY_BYTES, boot_from_disk, cloud_memory_bytes
from testbed.qemu.domain import Domain, domain_xml
from testbed.qemu.enclosure import enclose
from vm_images.cloud import KERNEL_ARGUMENTS, CloudDisk, ensure_cloud, kernel_package
from vm_images.qcow2 import clone
from vm_images.seed import seed

# A distribution's whole boot is many times our own guest's: measured, 9 times to clickme's first answer.
_BOOT = 4.0


class _Stock(Struct, frozen=True):
    """What all guests start from: the stock system's disk, and a clone of it that nobody has written to."""

    disk: CloudDisk
    clones: Path
    launcher: bytes

    @property
    def fresh(self) -> Path:
        return self.clones / "fresh"

    def clone_of(self, name: str) -> Path:
        """Return where the guest ``name`` has its own clone."""
        return self.clones / f"{name}.qcow2"


class CloudPlatform(VmPlatform):
    """Guests with a stock system; parameters and use as VmPlatform's."""

    _stock: _Stock | None = None

    @property
    def patience(self) -> float:
        return _BOOT * super().patience

    def _stocked(self) -> _Stock:
        if self._stock is None:
            raise TestbedError("the virtual machine platform is used before it is prepared")
        return self._stock

    def facts(self) -> Mapping[str, object]:
        """Return what VmPlatform's does, for the stock system; ``memory`` says when a guest has more RAM than its
        limit."""
        disk = self._stocked().disk
        release = RELEASES[disk.codename]
        return {
            **super().facts(),
            "kernel": disk.kernel,
            "kernel_package": f"{kernel_package(release)} of {release.title}, {release.codename}",
            "command_line": KERNEL_ARGUMENTS,
            "direct_boot": "none: SeaBIOS, GRUB",
            "system": {name: value for name, value in asdict(disk).items() if name != "folder"},
            "memory": f"the limit, but at least {LEAST_MEMORY_BYTES >> 20} MiB; the unit's MemoryMax is the limit",
        }

    def prepare_images(self, images: Iterable[Image]) -> None:
        with ExitStack() as undo:
            disk = ensure_cloud(store_root() / "guest", print_progress)
            # In the store, not in the run's scratch directory, which is memory on most hosts.
            clones = undo.enter_context(atomic.scratch(disk.folder.parent / f"{self._run_id}-{self.name}-systems"))
            enclose(clones)
            stock = _Stock(disk, clones, STATIC_BINARY.read_bytes())
            clone(disk.path, "raw", stock.fresh)
            super().prepare_images(images)
            self._stock = stock
            self._clones = undo.pop_all()

    def _domain(self, instance: Instance, folder: Path, undo: ExitStack) -> Domain:
        domain = super()._domain(instance, folder, undo)
        return replace(domain, memory_bytes=cloud_memory_bytes(domain.memory_bytes))

    def _write_boot_files(self, instance: Instance, domain: Domain) -> list[Path]:
        stock = self._stocked()
        # A clone that nobody has written to is 200 KB and names what it stands on: copied faster than made.
        shutil.copyfile(stock.fresh, stock.clone_of(instance.name))
        identity = f"{self._run_id}-{instance.name}"
        self._seed(domain).write_bytes(seed(instance.spec, identity, stock.launcher))
        return [stock.clone_of(instance.name), self._seed(domain)]

    def _xml(self, domain: Domain) -> str:
        return boot_from_disk(domain_xml(domain), self._stocked().clone_of(domain.name), self._seed(domain))

    def _seed(self, domain: Domain) -> Path:
        return domain.initrd.with_name("seed")

    def stop(self, instance: Instance) -> None:
        super().stop(instance)
        if self._stock is not None:
            self._stock.clone_of(instance.name).unlink(missing_ok=True)

    def close(self) -> None:
        with ExitStack() as undo:
            if self._stock is not None:
                undo.push(self._clones)
                self._stock = None
            undo.callback(super().close)
