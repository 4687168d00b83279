"""The volumes of projects, which outlive them, and the files of their secrets and configs, which do not.

<store>/volumes/<project>/<volume>/      what a volume holds
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.atomic import partial, remove
from runtime.errors import PrerequisiteError, UsageError, in_words
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.rootfs import lookup, resolve
from testbed.compose.model import Application, Mount, Service
from testbed.services.contents import set_owner
from testbed.services.mounts import Places, list_files, volume_name
from vm_images.flatten import Node, merge


def volumes_folder(project: str) -> Path:
    """Return the folder of a project's volumes."""
    return store_root() / "volumes" / project


def remove_volumes(project: str) -> tuple[str, ...]:
    """Remove a project's volumes; their names."""
    folder = volumes_folder(project)
    names = tuple(sorted(os.listdir(folder))) if folder.is_dir() else ()
    remove(folder)
    return names


def prepare_places(
    places: Places, services: Sequence[Service], application: Application, images: dict[str, Image]
) -> None:
    """Make what is to be mounted in the services: volumes, filled from the image where they are new, the host's
    directories that are missing, and the files of secrets and configs.

    Raises UsageError for a source that is not there and is not to be made, PrerequisiteError when the host refuses.
    """
    for service in services:
        try:
            for mount in service.mounts:
                if mount.kind == "volume":
                    _prepare_volume(places.volume(application, volume_name(mount)), mount, images[service.name])
                elif mount.kind == "bind":
                    _prepare_bound(Path(mount.source), mount, service, images[service.name])
            for number, (one, content) in enumerate(list_files(service, application)):
                path = places.file(service.name, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.path.read_bytes() if content.path is not None else content.text.encode())
                set_owner(path, one)
        except OSError as error:
            raise PrerequisiteError(f"{service.name}: prepare what is mounted: {in_words(error)}") from error


def _prepare_bound(source: Path, mount: Mount, service: Service, image: Image) -> None:
    """Make a directory of the host that is missing, but none to be mounted on a file of the image."""
    inside = lookup(mount.target, image.layers)
    if not source.exists():
        if not mount.create or (inside is not None and not inside.is_dir()):
            raise UsageError(f"{service.name}: {source}, mounted at {mount.target}, is not there", "make it first")
        source.mkdir(parents=True)
    elif inside is not None and source.is_dir() != inside.is_dir():
        ours, theirs = ("a directory", "a file") if source.is_dir() else ("a file", "a directory")
        what = f"{service.name}: {source} is {ours}, and {mount.target}, where it is mounted, {theirs} of the image"
        raise UsageError(what, f"put {theirs} there")


def _prepare_volume(path: Path, mount: Mount, image: Image) -> None:
    """Make a volume that is not there, with what the image has where it is mounted, as Docker does."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial(path) as unfinished:
        unfinished.mkdir()
        layers = [layer.path for layer in image.layers]
        node = None if not layers else find_node(merge(layers), resolve(mount.target, image.layers))
        if node is not None and node.children is not None:
            _copy_attributes(node.source, unfinished)
            if mount.copy:
                _copy_tree(node, unfinished)
    if mount.subpath:
        (path / mount.subpath).mkdir(parents=True, exist_ok=True)


def find_node(root: Node, target: str) -> Node | None:
    """Return what the image shows at a path, without following links; None for nothing."""
    node: Node | None = root
    for name in filter(None, target.split("/")):
        node = (node.children or {}).get(name) if node is not None else None
    return node


def _copy_tree(root: Node, folder: Path) -> None:
    for name, node in root.walk():
        if not name:
            continue
        path, status = folder / name, node.source.lstat()
        if node.children is not None:
            path.mkdir()
        elif stat.S_ISREG(status.st_mode):
            shutil.copyfile(node.source, path, follow_symlinks=False)
        elif stat.S_ISLNK(status.st_mode):
            path.symlink_to(node.source.readlink())
        else:
            continue  # a pipe or device of the image, which is made anew by whoever needs it
        _copy_attributes(node.source, path)


def _copy_attributes(source: Path, target: Path) -> None:
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
