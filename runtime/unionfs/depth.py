"""How many layers an overlay has at most. A build asks that long before anything is mounted, or without."""

from __future__ import annotations

from collections.abc import Collection

from runtime.errors import UsageError

# fs/overlayfs/params.h: OVL_MAX_STACK
LAYERS_LIMIT = 500


def check_depth(layers: Collection[str]) -> None:
    """Raise UsageError if there are more layers than the kernel mounts."""
    different = len(set(layers))
    if different > LAYERS_LIMIT:
        raise UsageError(
            f"overlay: the kernel mounts at most {LAYERS_LIMIT} layers, and here are {different}",
            "join RUN instructions by && and COPY instructions into one",
        )
