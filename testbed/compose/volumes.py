"""The short form of a mount in a compose file, ``[SOURCE:]TARGET[:OPTIONS]``, taken apart as Compose does."""

from __future__ import annotations

from msgspec import Struct


class ShortVolume(Struct, frozen=True):
    """The parts of a mount's short form; ``source`` is "" for a volume without a name."""

    source: str
    target: str
    options: tuple[str, ...] = ()


def split_volume(text: str) -> ShortVolume:
    """Return the parts of a mount's short form."""
    first, colon, rest = text.partition(":")
    if not colon:
        return ShortVolume("", text)
    target, colon, options = rest.partition(":")
    if not target.startswith("/") and not colon and first.startswith("/"):
        # /target:ro has no source.
        return ShortVolume("", first, tuple(target.split(",")))
    return ShortVolume(first, target, tuple(options.split(",")) if options else ())


def is_path(source: str) -> bool:
    """Return whether a source is a path of the host, rather than the name of a volume."""
    return source.startswith(("/", ".", "~"))
