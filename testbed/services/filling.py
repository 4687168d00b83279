"""What is mounted in services, made: volumes, filled from the images, directories of the host, secrets and configs."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.atomic import partial
from runtime.config.types import Mount as OciMount
from runtime.errors import PrerequisiteError, UsageError, in_words
from runtime.images.model import Image
from runtime.images.rootfs import lookup, resolve
from testbed.compose.model import Application, Content, FileMount, Mount, Service
from testbed.services.contents import set_owner
from testbed.services.mounts import Places, list_files, list_mounts
from vm_images.flatten import Node, merge


@contextmanager
def prepare_places(
    places: Places, services: Sequence[Service], application: Application, images: Mapping[str, Image]
) -> Iterator[Mapping[str, tuple[OciMount, ...]]]:
    """Make what is to be mounted in the services: volumes, filled from the image where they are new, the host's
    directories that are missing, and the files of secrets and configs. Yield the mounts by service; they hold within.

    Raises UsageError for a source that is not there and is not to be made, or to which a link leads that a service
    could have made, PrerequisiteError when the host refuses.
    """
    writable = _list_writable(places, services, application)
    with ExitStack() as undo:
        mounts = {}
        for service in services:
            try:
                parts = {}
                for mount in (one for one in service.mounts if one.kind in ("volume", "bind")):
                    source = places.source(application, mount)
                    if mount.kind == "volume":
                        _prepare_volume(source, mount, images[service.name])
                    if (above := _find_above(source, mount, writable)) is not None:
                        parts[mount] = _hold(above, source / mount.subpath, mount, service.name, undo)
                    if mount.kind == "bind":
                        _prepare_bound(parts.get(mount, source), mount, service, images[service.name])
                for number, (one, content) in enumerate(list_files(service, application)):
                    _write_file(places.file(service.name, number), one, content)
            except OSError as error:
                raise PrerequisiteError(f"{service.name}: prepare what is mounted: {in_words(error)}") from error
            mounts[service.name] = list_mounts(service, application, places, parts)
        yield mounts


def _list_writable(places: Places, services: Sequence[Service], application: Application) -> frozenset[Path]:
    """Return all that a service may write to: it could leave links there."""
    return frozenset(
        places.source(application, mount)
        for service in services
        for mount in service.mounts
        if mount.kind in ("volume", "bind") and not mount.read_only
    )


def _find_above(source: Path, mount: Mount, writable: Collection[Path]) -> Path | None:
    """Return the directory in which a mount's source is a part that somebody may have replaced; None when it is none.
    A volume may have been written to before."""
    if mount.subpath:
        return source
    return next((above for above in reversed(source.parents) if above in writable), None)


def _hold(above: Path, source: Path, mount: Mount, service: str, undo: ExitStack) -> Path:
    """Return a path of what is mounted that stays what it is, whatever becomes of its name: a descriptor's, which
    ``undo`` closes. It is made where it is missing, a directory; no link is followed from ``above`` on."""
    if mount.create:
        above.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(above, os.O_PATH | os.O_CLOEXEC)
    for name in source.relative_to(above).parts:
        with suppress(FileExistsError):
            if mount.create:
                os.mkdir(name, dir_fd=descriptor)
        try:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            what = f"{service}: {source}, mounted at {mount.target}: {name} is a link, which may lead anywhere"
            raise UsageError(what, f"mount what it leads to: services may write to {above}")
    undo.callback(os.close, descriptor)
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")


def _write_file(path: Path, one: FileMount, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.path.read_bytes() if content.path is not None else content.text.encode())
    set_owner(path, one)


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
    # What services make, programs with the rights of their owners for example, is not for other users of the host.
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    with partial(path) as unfinished:
        unfinished.mkdir()
        layers = [layer.path for layer in image.layers]
        node = None if not layers else find_node(merge(layers), resolve(mount.target, image.layers))
        if node is not None and node.children is not None:
            _copy_attributes(node.source, unfinished)
            if mount.copy:
                _copy_tree(node, unfinished)


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
