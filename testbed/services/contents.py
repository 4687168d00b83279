"""The files that a service's file mounts, as a further layer of its image: the same bytes for every platform.

What is bound, secrets, configs and mount points of volumes are copied into one layer, whose digest is in a run's
manifest as those of the others are. It hides what the image has at the same paths, as a mount would; what the service
writes there stays in its own writable layer, and the host's files stay as they are.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.errors import UsageError, in_words
from runtime.images.layers import await_tick, settle
from runtime.images.model import Image, Layer
from runtime.images.rootfs import lookup, resolve
from runtime.images.store import Store
from runtime.unionfs.lookup import OPAQUE_XATTR
from testbed.compose.model import Application, FileMount, Mount, Service
from testbed.services.mounts import SECRET_MODE, list_files
from testbed.services.processes import INIT, INIT_TARGET

# What is bound is copied for each run; a larger one is no configuration but data, and takes long.
MOST_BYTES, MOST_FILES = 1 << 30, 100_000


def has_contents(service: Service) -> bool:
    """Return whether something of the host's, or of its own file, is mounted in a service."""
    return bool(
        service.init
        or service.secrets
        or service.configs
        or any(one.kind in ("bind", "volume") for one in service.mounts)
    )


def add_contents(
    store: Store,
    reference: str,
    image: Image,
    service: Service,
    application: Application,
    progress: Callable[[str], None],
) -> Image:
    """Return a service's image with the layer of what its file mounts, which the store calls ``reference``.

    Raises UsageError for what cannot be copied: a socket, a device, a source that is not there, or too much of it.
    """
    with store.building(progress), store.scratch() as scratch:
        tree = scratch / "contents"
        tree.mkdir()
        since_s = await_tick()
        _Laying(tree, image.layers, service.name).lay(service, application)
        newest_s = settle(tree, since_s, max((store.newest_s(layer) for layer in image.layers), default=0))
        layer = store.add_layer(tree, f"files of {service.name}", newest_s)
        return store.tag(reference, image.config, (*image.layers, layer), image.history)


def copy_source(source: Path, target: Path, service: str) -> None:
    """Copy a file or directory of the host, with owners, times and attributes; the first link, too, is followed. Raises
    UsageError for what cannot be copied, or too much of it, and OSError."""
    _Laying(target.parent, (), service).copy(source, target, source)


class _Laying:
    """Lays the files of a service into the tree of a layer that lies above its image's."""

    def __init__(self, tree: Path, layers: Sequence[Layer], service: str) -> None:
        self._tree, self._layers, self._service = tree, layers, service
        self._bytes = self._files = 0

    def lay(self, service: Service, application: Application) -> None:
        bound = {one.name: one.path for one in application.volumes if one.path is not None}
        for mount in sorted(service.mounts, key=lambda one: one.target.count("/")):
            if mount.kind == "bind":
                self._copy_bound(Path(mount.source), mount)
            elif mount.kind == "volume" and mount.source in bound:
                self._copy_bound(bound[mount.source], mount)
            elif mount.kind == "volume":
                self._make_directory(self._place(mount.target))
        for one, content in list_files(service, application):
            data = content.path.read_bytes() if content.path is not None else content.text.encode()
            self._write(one, data)
        if service.init:
            path = self._place(INIT_TARGET)
            self._make_directory(path.parent)
            shutil.copy(INIT, path)

    def _place(self, target: str) -> Path:
        """Return where a path of the service's root lies in the tree, links of the image followed."""
        return self._tree / resolve(target, self._layers).lstrip("/")

    def _make_directory(self, path: Path) -> None:
        """Make a directory and those above it, each as the image has it."""
        if path == self._tree or path.is_dir():
            return
        self._make_directory(path.parent)
        path.mkdir()
        below = lookup("/" + str(path.relative_to(self._tree)), self._layers)
        if below is not None and stat.S_ISDIR(below.lstat().st_mode):
            status = below.lstat()
            os.chown(path, status.st_uid, status.st_gid)
            path.chmod(stat.S_IMODE(status.st_mode))

    def _copy_bound(self, source: Path, mount: Mount) -> None:
        source = source / mount.subpath if mount.subpath else source
        target = self._place(mount.target)
        self._make_directory(target.parent)
        try:
            if not source.exists() and mount.create:
                self._make_directory(target)
                return
            if target.is_dir():
                shutil.rmtree(target)
            self.copy(source, target, source)
        except OSError as error:
            raise UsageError(f"{self._service}: copy {source} for {mount.target}: {in_words(error)}") from error
        if target.is_dir():
            os.setxattr(target, OPAQUE_XATTR, b"y")

    def copy(self, source: Path, target: Path, mounted: Path) -> None:
        """Copy a file or a directory, with owners, times and attributes; the first link, too, is followed."""
        pending = [(source.resolve(strict=True), target)]
        while pending:
            here, there = pending.pop()
            status = here.lstat()
            self._count(status, mounted)
            if stat.S_ISDIR(status.st_mode):
                there.mkdir()
                pending += [(Path(entry.path), there / entry.name) for entry in os.scandir(here)]
            elif stat.S_ISREG(status.st_mode):
                shutil.copyfile(here, there, follow_symlinks=False)
            elif stat.S_ISLNK(status.st_mode):
                there.symlink_to(here.readlink())
            else:
                raise UsageError(
                    f"{self._service}: {here} is a socket, pipe or device, which only this host's containers can have",
                    "bring it up as containers: ./invoke up, without --platform",
                )
            os.chown(there, status.st_uid, status.st_gid, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                shutil.copystat(here, there, follow_symlinks=False)
            else:
                there.chmod(stat.S_IMODE(status.st_mode))

    def _count(self, status: os.stat_result, mounted: Path) -> None:
        self._files += 1
        self._bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if self._files > MOST_FILES or self._bytes > MOST_BYTES:
            raise UsageError(
                f"{self._service}: {mounted} and what else is mounted has more than {MOST_FILES} files"
                f" or {MOST_BYTES >> 30} GiB",
                "have it in the image, or bring it up as containers",
            )

    def _write(self, one: FileMount, data: bytes) -> None:
        path = self._place(one.target)
        self._make_directory(path.parent)
        path.write_bytes(data)
        set_owner(path, one)


def set_owner(path: Path, one: FileMount) -> None:
    """Give the file of a secret or config the owner and the mode that it is to have. Raises UsageError."""
    try:
        os.chown(path, int(one.uid or 0), int(one.gid or 0))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{one.source}: uid {one.uid!r}, gid {one.gid!r}: not numbers of a user and a group"
        ) from error
    path.chmod(SECRET_MODE if one.mode is None else one.mode)
