"""How many layers an overlay has at most, and how many of more are merged so that it has them all."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import TypeVar

from runtime.errors import UsageError

# fs/overlayfs/params.h: OVL_MAX_STACK
LAYERS_LIMIT = 500

T = TypeVar("T", bound=Hashable)


def effective(layers: tuple[T, ...]) -> tuple[T, ...]:
    """Return the layers, bottom first, each once, because the kernel refuses repeated ones. The topmost of them stays.

    The others would show nothing: every name, whiteout and opaque directory of theirs is in the topmost, above them.
    """
    return tuple(reversed(dict.fromkeys(reversed(layers))))


def merged_count(count: int) -> int:
    """Return how many of the lowest of ``count`` different layers are to become one so that an overlay has all; 0 where
    it has them as they are.

    It is a multiple of half of what an overlay has, so that stacks which begin with the same layers and grow above
    them share what is merged.
    """
    if count <= LAYERS_LIMIT:
        return 0
    share = LAYERS_LIMIT // 2
    return -(-(count - LAYERS_LIMIT + 1) // share) * share


def check_depth(layers: Collection[str]) -> None:
    """Raise UsageError if there are more layers than the kernel mounts."""
    different = len(set(layers))
    if different > LAYERS_LIMIT:
        raise UsageError(
            f"overlay: the kernel mounts at most {LAYERS_LIMIT} layers, and here are {different}",
            "those of an image or a root are merged before: runtime.images.merging",
        )
