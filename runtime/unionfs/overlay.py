"""Overlay roots as plan steps (Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import PurePosixPath

from msgspec import Struct

from runtime.errors import UsageError
from runtime.plan.constants import MS_NODEV, MS_NOSUID
from runtime.plan.steps import Chdir, Mkdir, Mount, Step

DEV = "dev"
# mount(2) copies one page of options, the last byte of which is the terminator.
_OPTIONS_LIMIT_BYTES = 4095


class WritableLayer(Struct, frozen=True):
    """Where an overlay's changes go: ``upper`` and the kernel's scratch directory ``work``, on one file system."""

    upper: str
    work: str


def options(lowerdirs: tuple[str, ...], writable: WritableLayer) -> str:
    """The mount options; ``lowerdirs`` run bottom first (the kernel wants the top one first).

    Raises UsageError when a path holds a colon or comma, or the options exceed what mount(2) takes.
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
    """Mount the layers with a writable layer at ``target``, from within their common directory.

    Relative names keep many layers below the limit of a page; the working directory is changed for that.
    """
    if not layers:
        raise UsageError("overlay: an image without layers has no root file system")
    common = os.path.commonpath([str(PurePosixPath(layer).parent) for layer in layers])
    relative = tuple(os.path.relpath(layer, common) for layer in layers)
    return (Chdir(common), Mount("overlay", target, "overlay", 0, options(relative, writable)))


def volatile_steps(directory: str) -> tuple[tuple[Step, ...], WritableLayer]:
    """A tmpfs on ``directory`` with an empty writable layer in it, gone with the last process that sees it. Beside the
    layer is a directory DEV to become /dev: for that no file system more is needed."""
    writable = WritableLayer(f"{directory}/upper", f"{directory}/work")
    steps = (
        Mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"),
        Mkdir(writable.upper),
        Mkdir(writable.work),
        Mkdir(f"{directory}/{DEV}"),
    )
    return steps, writable
