"""A container's root: a directory, or an image's layers below one that takes what is written.

/proc, /dev and the rest are mounts of the configuration (``mounts``, ``devices``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EEXIST
from functools import lru_cache

from msgspec import Struct

from runtime.plan import constants as k
from runtime.plan.steps import ROOT_FD, Bind, Chdir, MaskPath, Mkdir, Mount, Open, OpenTree, ReadonlyPath, Step, Write
from runtime.unionfs.overlay import WritableLayer, mount_steps, volatile_steps

# The root's descriptor, from the working directory: what later steps do inside, they do below it.
HOLD_ROOT = Open(".", ROOT_FD, os.O_PATH | os.O_DIRECTORY)
# A directory that every host has. A tmpfs lies over it in the container's own mount namespace only.
MEMORY = "/tmp"
# Descriptor of an empty directory, until exec.
EMPTY = 109


class ImageRoot(Struct, frozen=True):
    """A root made of the ``layers`` of an image, absolute paths, bottom first.

    What is written goes to ``writable``, on disk, or else to memory. ``files`` are names below /etc and texts; where a
    writable layer on disk is to become the image's, they are bound over what the image has and do not become its own.
    """

    layers: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    writable: WritableLayer | None = None

    @property
    def memory(self) -> str:
        """The tmpfs that holds what is written, which has room for other things; empty without one."""
        return "" if self.writable else MEMORY

    @property
    def empty(self) -> int:
        """The descriptor of a held empty directory to hide others behind, or 0."""
        return 0 if self.writable else EMPTY


def image_root_steps(image: ImageRoot) -> tuple[Step, ...]:
    """Mount the layers and go there. On disk the overlay covers the layers' own directory."""
    if image.writable is not None:
        common = os.path.dirname(image.layers[0]) if image.layers else "/"
        return (*mount_steps(image.layers, image.writable, common), Chdir(common), HOLD_ROOT)
    volatile, layer = volatile_steps(MEMORY)
    target, empty = f"{MEMORY}/root", f"{MEMORY}/empty"
    *enter, overlay = mount_steps(image.layers, layer, target)
    return (*enter, *volatile, Mkdir(target), Mkdir(empty), OpenTree(empty, EMPTY), overlay, Chdir(target), HOLD_ROOT)


def directory_root_steps(root: str) -> tuple[Step, ...]:
    """Make a mount of the directory and go there."""
    return (Mount(root, root, "", k.MS_BIND | k.MS_REC), Chdir(root), HOLD_ROOT)


def hosts_file(hosts: Sequence[tuple[str, str]]) -> str:
    """/etc/hosts: the loopback names, then names and their addresses."""
    lines = ["127.0.0.1\tlocalhost", *(f"{address}\t{name}" for name, address in hosts)]
    return "\n".join(lines) + "\n"


def identity_files(hostname: str, hosts: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The files below /etc that name host and neighbours."""
    return (("hostname", f"{hostname}\n"), ("hosts", hosts_file(hosts)))


def written_files(files: Sequence[tuple[str, str]]) -> tuple[Step, ...]:
    """Write files below /etc, when all that is the kernel's is protected. Whatever the image has in their place is
    replaced, a link too, and not followed."""
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
    """The files of an image's root, which has been entered."""
    return bound_files(image.files) if image.writable else written_files(image.files)


@lru_cache(maxsize=64)
def hiding_steps(readonly_paths: tuple[str, ...], masked_paths: tuple[str, ...], empty: int = 0) -> tuple[Step, ...]:
    """Write-protect and hide what the runtime-spec's readonlyPaths and maskedPaths name; ``empty`` is the descriptor of
    a held empty directory to hide directories behind."""
    return (*(ReadonlyPath(path) for path in readonly_paths), *(MaskPath(path, empty) for path in masked_paths))
