"""Take from a root what the runtime made in it for its own mounts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.images.model import Layer
from runtime.images.mount_points import remove_mount_points

# What the runtime binds over the image's files, besides those of every container (runtime.plan.root.identity_files).
_BOUND_FILES = ("etc/hostname",)


def remove_from(upper: str, below: Sequence[str]) -> None:
    """Remove from a layer the mount points that the layers ``below`` it, bottom first, do not have."""
    remove_mount_points(Path(upper), [Layer("", Path(path)) for path in below], _BOUND_FILES)
