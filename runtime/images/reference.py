"""References of images: which different spellings people and tools use for the same one.

The store calls an image what its maker called it. People leave out what tools take for granted: the registry that short
names have, its ``library/``, podman's ``localhost/`` for what was built here, and ``:latest``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from runtime.errors import UsageError

# distribution-spec 1.1, "Pulling manifests": the name, with a host that may have a port, then the tag.
_NAME = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
)
_LONGEST = 255

_LIBRARY, _LOCAL, _LATEST = "library/", "localhost/", ":latest"


def find_name(reference: str, names: Collection[str]) -> str | None:
    """Return which of ``names`` the image called ``reference`` is stored as; None when none is, or when several could
    be, each of another registry."""
    asked = _tagged(reference)
    exact = [name for name in (reference, asked, asked.removesuffix(_LATEST)) if name in names]
    if exact or "@" in reference:
        return exact[0] if exact else None
    if reference.startswith(_LOCAL):
        return find_name(reference.removeprefix(_LOCAL), [name for name in names if not _registry(name)])
    if _registry(reference):
        return None
    others = {_tagged(name): name for name in names if _registry(name)}
    local = others.get(_LOCAL + asked)
    far = [name for tagged, name in others.items() if _without_registry(tagged) == asked]
    return local or (far[0] if len(far) == 1 else None)


def _tagged(reference: str) -> str:
    return reference if ":" in reference.rpartition("/")[2] else reference + _LATEST


def _registry(reference: str) -> str:
    """Return the host that a reference begins with, and its port if any; empty when it begins with none."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == _LOCAL[:-1]) else ""


def _without_registry(reference: str) -> str:
    return reference.partition("/")[2].removeprefix(_LIBRARY)


def check_name(name: str) -> str:
    """Return ``name``. Raises UsageError unless other tools accept it as the name of an image, too."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise UsageError(
            f"name {name[:80]!r}: no name of an image", "lower-case letters, digits, .-_ and /, then : and a tag if any"
        )
    return name
