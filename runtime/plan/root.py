"""Make a container's root from a directory, or from an image's layers below a layer that takes the writes.

/proc, /dev and the rest are mounts of the configuration (``mounts``, ``devices``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EEXIST
from functools import lru_cache

from msgspec import Struct

from runtime.plan import constants as k
from runtime.plan.steps import (
    ROOT_FD,
    Bind,
    Chdir,
    MaskPath,
    Mkdir,
    Mount,
    Open,
    OpenTree,
    ReadonlyPath,
    Step,
    Unshare,
    Write,
)
from runtime.unionfs.depth import effective
from runtime.unionfs.overlay import WritableLayer, mount_steps, volatile_steps

# What makes a root out of layers, as manifests name it: the launcher performs no other driver of unions.
DRIVER = "overlay"
# Opens the working directory as the root's descriptor. Later steps with ``inside`` work below it.
HOLD_ROOT = Open(".", ROOT_FD, os.O_PATH | os.O_DIRECTORY)
# Every host has this directory. A tmpfs covers it only in the container's own mount namespace.
MEMORY = "/tmp"
# This descriptor holds an empty directory until exec.
EMPTY = 109


class ImageRoot(Struct, frozen=True):
    """A root is made of the ``layers`` of an image, which are absolute paths, bottom first.

    Writes go to ``writable``, on disk, or else to memory. ``files`` are pairs of a name below /etc and a text. Where
    a writable layer on disk is to become part of the image, they are bound over the image's files and so stay out of
    it; one that is ``temporary`` does not. With a writable layer on disk, the root is mounted on ``mount_point``, or
    else on the layers' own directory, which nothing that is mounted later can come from then.

    What is in memory is mounted on ``memory_at``, which covers that directory of the host in the container's mount
    namespace. ``owner`` is the host's id of the root of a user namespace, for whom the launcher mounts the layers with
    mapped ids before it clones (``mapped_root_steps``); 0 is the host's own root. ``quota_bytes`` is how much memory
    may hold of what is written; 0 for as much as the kernel gives.
    """

    layers: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    writable: WritableLayer | None = None
    temporary: bool = False
    mount_point: str = ""
    memory_at: str = MEMORY
    owner: int = 0
    quota_bytes: int = 0

    @property
    def memory(self) -> str:
        """Return the path of the tmpfs that holds the writes and has room for other things; empty without one."""
        return "" if self.writable or self.owner else self.memory_at

    @property
    def empty(self) -> int:
        """Return the descriptor of a held empty directory to hide others behind, or 0."""
        return EMPTY if self.memory else 0


def image_root_steps(image: ImageRoot) -> tuple[Step, ...]:
    """Mount the layers, unless the launcher has, and change to the root."""
    if image.owner:
        return directory_root_steps(f"{image.memory_at}/root")
    if image.writable is not None:
        target = image.mount_point or (os.path.dirname(image.layers[0]) if image.layers else "/")
        return (*mount_steps(image.layers, image.writable, target), Chdir(target), HOLD_ROOT)
    volatile, layer = volatile_steps(image.memory, quota_bytes=image.quota_bytes)
    target, empty = f"{image.memory}/root", f"{image.memory}/empty"
    *enter, overlay = mount_steps(image.layers, layer, target)
    return (*enter, *volatile, Mkdir(target), Mkdir(empty), OpenTree(empty, EMPTY), overlay, Chdir(target), HOLD_ROOT)


def mapped_root_steps(image: ImageRoot, userns: str) -> tuple[Step, ...]:
    """Mount the layers for a user namespace: each with its ids mapped as the namespace at ``userns`` has them, in a
    mount namespace of the launcher's own, of which the container's is a copy.

    The root of a user namespace cannot do that: it may map no ids, and reads no trusted.* attribute, by which overlay
    knows a directory that replaces the ones below it (overlayfs.rst, "Permission model")."""
    volatile, writable = volatile_steps(image.memory_at, image.owner, image.quota_bytes)
    layers = effective(image.layers)
    shown = [f"{image.memory_at}/{number}" for number in range(len(layers))]
    return (
        Unshare(k.CLONE_NEWNS),
        Mount("", "/", "", k.MS_REC | k.MS_PRIVATE),
        *volatile,
        Chdir(image.memory_at),
        HOLD_ROOT,
        *(Bind(layer, str(number), set=k.MOUNT_ATTR_RDONLY, userns=userns) for number, layer in enumerate(layers)),
        Mkdir(f"{image.memory_at}/root"),
        *mount_steps(tuple(shown), writable, f"{image.memory_at}/root"),
    )


def directory_root_steps(root: str) -> tuple[Step, ...]:
    """Make the directory a mount point and change to it."""
    return (Mount(root, root, "", k.MS_BIND | k.MS_REC), Chdir(root), HOLD_ROOT)


def hosts_file(hosts: Sequence[tuple[str, str]]) -> str:
    """Format /etc/hosts: the loopback name comes first, then the given pairs of name and address."""
    lines = ["127.0.0.1\tlocalhost", *(f"{address}\t{name}" for name, address in hosts)]
    return "\n".join(lines) + "\n"


def identity_files(hostname: str, hosts: Sequence[tuple[str, str]], resolver: str = "") -> tuple[tuple[str, str], ...]:
    """Return the files below /etc that name the host and its neighbours, and with a ``resolver``, the text of
    resolv.conf(5), who knows of others."""
    named = (("hostname", f"{hostname}\n"), ("hosts", hosts_file(hosts)))
    return (*named, ("resolv.conf", resolver)) if resolver else named


def written_files(files: Sequence[tuple[str, str]]) -> tuple[Step, ...]:
    """Write files below /etc, once all kernel file systems are protected. Whatever the image has in their place is
    replaced; a link is replaced too, not followed."""
    if not files:
        return ()
    written = (Write(f"etc/{name}", (text,), create=True, inside=True) for name, text in files)
    return (Mkdir("etc", tolerate=(EEXIST,), inside=True), *written)


def bound_files(files: Sequence[tuple[str, str]]) -> tuple[Step, ...]:
    """Bind files over the image's, once the root has been entered, without writing to the image."""
    return tuple(
        step
        for name, text in files
        for step in (
            Write(f"dev/{name.replace('/', '-')}", (text,), create=True, inside=True),
            Bind(f"/dev/{name.replace('/', '-')}", f"etc/{name}"),
        )
    )


def file_steps(image: ImageRoot) -> tuple[Step, ...]:
    """Put the files into an image's root, which has been entered."""
    return bound_files(image.files) if image.writable and not image.temporary else written_files(image.files)


@lru_cache(maxsize=64)
def hiding_steps(readonly_paths: tuple[str, ...], masked_paths: tuple[str, ...], empty: int = 0) -> tuple[Step, ...]:
    """Write-protect what the runtime-spec's readonlyPaths name and hide what maskedPaths name. ``empty`` is the
    descriptor of a held empty directory to hide directories behind, or 0."""
    return (*(ReadonlyPath(path) for path in readonly_paths), *(MaskPath(path, empty) for path in masked_paths))
