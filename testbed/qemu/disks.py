"""The disks that a platform's guests run from, as its variant says: one that all share, or each its own clone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import to_builtins

from runtime import atomic
from runtime.errors import UsageError
from runtime.images.merging import directories
from runtime.images.model import Image
from testbed.qemu.enclosure import enclose
from testbed.qemu.variants import Disk
from vm_images.disk import ensure_disk
from vm_images.page_cache import io_mode, require_cache_mode
from vm_images.qcow2 import clone


class Disks:
    """Disks of images' layers, stored below ``guest_root``; clones are removed by ``close``.

    Clones lie in the store, not in the run's scratch directory, which is memory on most hosts: what a guest wrote
    would be too. What a killed run leaves there bears its process id, and `invoke clean` finds it. ``owner`` says
    those of one platform from another's.
    """

    def __init__(self, guest_root: Path, disk: Disk, owner: str) -> None:
        self._disk = disk
        self._shared = guest_root / "disks"
        enclose(self._shared)
        self._built: list[Path] = []
        self._paths: dict[tuple[str, ...], Path] = {}
        self._reserved: dict[str, Path] = {}
        self._made = 0
        self._undo = ExitStack()
        self._clones = self._undo.enter_context(atomic.scratch(guest_root / owner))

    @property
    def own(self) -> bool:
        """Whether each guest has, and writes to, a disk of its own."""
        return self._disk.format == "qcow2"

    def prepare(self, images: Iterable[Image]) -> None:
        """Build what the images need. Raises PrerequisiteError for a missing tool, space or page cache mode."""
        for image in images:
            path = ensure_disk(self._shared, image, self._disk.file_system)
            self._built.append(path)
            require_cache_mode(self._disk.cache, path)
            if self.own:
                enclose(self._clones)
                fresh = self._clones / f"{path.stem}.fresh"
                if not fresh.exists():
                    clone(path, "raw", fresh)
                path = fresh
            self._paths[directories(image.layers)] = path

    def paths(self) -> tuple[Path, ...]:
        """Return what QEMU reads of them, or what it writes to stands on."""
        return tuple(self._built)

    def give(self, layers: tuple[str, ...], name: str, undo: ExitStack) -> Path:
        """Return the disk with these layers for the guest ``name``, or the one reserved for it; ``undo`` takes it back.

        Raises UsageError when the layers' image was not prepared.
        """
        if name in self._reserved:
            reserved = self._reserved.pop(name)
            undo.callback(self.take_back, reserved)
            return reserved
        path = self._paths.get(layers)
        if path is None:
            raise UsageError(f"start virtual machine {name}: its image was not prepared")
        if not self.own:
            return path
        # A clone that nobody has written to is 200 KB and names what it stands on: copied faster than made.
        copy = self.new_path(name)
        undo.callback(self.take_back, copy)
        return shutil.copyfile(path, copy)

    def new_path(self, name: str) -> Path:
        """Return where a further disk of the guest ``name`` can be made. It stays until ``take_back`` or ``close``."""
        self._made += 1
        return self._clones / f"{self._made}-{name}.qcow2"

    @contextmanager
    def reserved(self, name: str, path: Path) -> Iterator[None]:
        """Have ``give`` hand out this disk to the guest ``name``, which is started meanwhile; or remove it."""
        self._reserved[name] = path
        try:
            yield
        finally:
            if self._reserved.pop(name, None):
                self.take_back(path)

    def take_back(self, path: Path) -> None:
        """Remove the disk of a guest that has ended, where it was the guest's own."""
        if self.own:
            path.unlink(missing_ok=True)

    def facts(self) -> Mapping[str, object]:
        """Return, for the manifest, what the disk is, and how the root file system stands on it."""
        own = f"{self._disk.file_system}, on a qcow2 clone of its own"
        root = own if self.own else f"overlay on tmpfs, over {self._disk.file_system}"
        return {"root": root, "disk": {**to_builtins(self._disk), "io": io_mode(self._disk.cache)}}

    def close(self) -> None:
        self._undo.close()
