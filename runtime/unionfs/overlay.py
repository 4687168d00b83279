"""Plan steps that mount overlay roots (Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import PurePosixPath

from msgspec import Struct

from runtime.errors import UsageError
from runtime.plan.constants import MS_NODEV, MS_NOSUID
from runtime.plan.steps import Chdir, Mkdir, Mount, Open, Step
from runtime.unionfs.depth import check_depth, effective

# mount(2) copies one page of options, and its last byte is the terminator.
_OPTIONS_LIMIT_BYTES = 4095
# The part of that which the names of layers may take; the rest is for the writable layer's two paths.
_NAMES_LIMIT_BYTES = 3072
_FIRST_LAYER_FD = 256


class WritableLayer(Struct, frozen=True):
    """The directories that take an overlay's changes: ``upper``, and on the same file system the kernel's scratch
    directory ``work``."""

    upper: str
    work: str


def options(lowerdirs: tuple[str, ...], writable: WritableLayer) -> str:
    """Return the mount options. ``lowerdirs`` are given bottom first; in the options the topmost comes first.

    Raises UsageError if a path holds a colon or comma, or if the options exceed what mount(2) takes.
    """
    for path in (*lowerdirs, writable.upper, writable.work):
        if ":" in path or "," in path:
            raise UsageError(f"overlay: {path!r} holds a colon or a comma, which separate mount options")
    text = f"lowerdir={':'.join(reversed(lowerdirs))},upperdir={writable.upper},workdir={writable.work}"
    if len(text.encode()) > _OPTIONS_LIMIT_BYTES:
        raise UsageError(f"overlay: {len(lowerdirs)} layers need {len(text)} bytes of mount options, above 4095")
    return text


@lru_cache(maxsize=64)
def mount_steps(layers: tuple[str, ...], writable: WritableLayer, target: str) -> tuple[Step, ...]:
    """Return the steps that mount the layers and a writable layer at ``target``, which is absolute.

    They change the working directory, because relative names keep some 140 layers below the limit of a page. More
    layers are named by descriptors. Raises UsageError above the kernel's limit.
    """
    if not layers:
        raise UsageError("overlay: an image without layers has no root file system")
    check_depth(layers)
    layers = effective(layers)
    common = os.path.commonpath([str(PurePosixPath(layer).parent) for layer in layers])
    relative = tuple(os.path.relpath(layer, common) for layer in layers)
    opened: tuple[Step, ...] = ()
    if sum(len(name.encode()) + 1 for name in relative) > _NAMES_LIMIT_BYTES:
        opened = tuple(Open(layer, _FIRST_LAYER_FD + i, os.O_PATH | os.O_DIRECTORY) for i, layer in enumerate(layers))
        common, relative = "/proc/self/fd", tuple(str(_FIRST_LAYER_FD + i) for i in range(len(layers)))
    return (*opened, Chdir(common), Mount("overlay", target, "overlay", 0, options(relative, writable)))


def volatile_steps(directory: str, owner: int = 0, quota_bytes: int = 0) -> tuple[tuple[Step, ...], WritableLayer]:
    """Return the steps that mount a tmpfs on ``directory`` and make an empty writable layer of ``owner``'s in it.

    The tmpfs goes with the last process that sees it. It takes up to ``quota_bytes``; without, the kernel's own limit
    holds, which is half of the machine's memory (tmpfs(5)).
    """
    writable = WritableLayer(f"{directory}/upper", f"{directory}/work")
    size = f",size={quota_bytes}" if quota_bytes else ""
    steps = (
        Mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755{size}"),
        Mkdir(writable.upper, owner=owner),
        Mkdir(writable.work),
    )
    return steps, writable
