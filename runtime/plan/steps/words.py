"""Format numbers in the kernel's words, for the descriptions of steps."""

from collections.abc import Mapping

from runtime.plan.constants import CAPABILITIES, MOUNT_ATTRIBUTES, MOUNT_FLAGS


def flag_names(flags: int, names: Mapping[int, str]) -> str:
    """Return the names of the set bits, joined with ``|``: unknown bits in hexadecimal, ``0`` for none."""
    known = [name for bit, name in names.items() if flags & bit]
    rest = flags & ~sum(bit for bit in names if flags & bit)
    return "|".join([*known, *([hex(rest)] if rest else [])]) or "0"


def capability_names(mask: int) -> str:
    """Return the names of a mask's capabilities, joined with ``|``; ``none`` for the empty set."""
    return "|".join(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1) or "none"


def attributes(added: int, removed: int, propagation: int, recursive: bool) -> str:
    """Return the changes that a mount_setattr(2) makes; empty when it makes none."""
    words = [f"+{flag_names(added, MOUNT_ATTRIBUTES)}"] if added else []
    words += [f"-{flag_names(removed, MOUNT_ATTRIBUTES)}"] if removed else []
    words += [flag_names(propagation, MOUNT_FLAGS)] if propagation else []
    return " ".join([*words, *(["AT_RECURSIVE"] if recursive and words else [])])


def quoted(data: str, limit: int = 60) -> str:
    """Return ``data`` in quotes, cut off at ``limit`` characters."""
    return repr(data if len(data) <= limit else f"{data[: limit - 1]}…")
