"""Numbers in the kernel's words, for what steps say of themselves."""

from collections.abc import Mapping

from runtime.plan.constants import CAPABILITIES, MOUNT_ATTRIBUTES, MOUNT_FLAGS


def flag_names(flags: int, names: Mapping[int, str]) -> str:
    """The set bits by name, unknown ones in hexadecimal, joined with ``|``; ``0`` for none."""
    known = [name for bit, name in names.items() if flags & bit]
    rest = flags & ~sum(bit for bit in names if flags & bit)
    return "|".join([*known, *([hex(rest)] if rest else [])]) or "0"


def capability_names(mask: int) -> str:
    """The capabilities of a mask by name, joined with ``|``; ``none`` for the empty set."""
    return "|".join(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1) or "none"


def attributes(added: int, removed: int, propagation: int, recursive: bool) -> str:
    """What a mount_setattr(2) changes; empty when that is nothing."""
    words = [f"+{flag_names(added, MOUNT_ATTRIBUTES)}"] if added else []
    words += [f"-{flag_names(removed, MOUNT_ATTRIBUTES)}"] if removed else []
    words += [flag_names(propagation, MOUNT_FLAGS)] if propagation else []
    return " ".join([*words, *(["AT_RECURSIVE"] if recursive and words else [])])


def quoted(data: str, limit: int = 60) -> str:
    """``data`` in quotes, cut off when it is long."""
    return repr(data if len(data) <= limit else f"{data[: limit - 1]}…")
