"""References of images: which different spellings people and tools use for the same one.

The store calls an image what its maker called it. Docker's tools leave out what they take for granted: the registry
``docker.io``, its ``library/``, and ``:latest``; podman names what was built here ``localhost/``.
"""

from __future__ import annotations

import re

from runtime.errors import UsageError

# distribution-spec 1.1, "Pulling manifests": the name, with a host that may have a port, then the tag.
_NAME = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
)
_LONGEST = 255

_HUB, _LIBRARY, _LOCAL, _LATEST = "docker.io/", "library/", "localhost/", ":latest"


def spellings(reference: str) -> tuple[str, ...]:
    """Return the names by which the image called ``reference`` may be stored, that one first."""
    if "@" in reference:
        return (reference,)
    first, slash, _ = reference.partition("/")
    bases = [reference]
    if reference.startswith(_LOCAL):
        bases.append(reference.removeprefix(_LOCAL))
    elif reference.startswith(_HUB):
        bare = reference.removeprefix(_HUB).removeprefix(_LIBRARY)
        bases.append(bare)
    elif not slash or not ("." in first or ":" in first):  # it names no registry
        bases += [_HUB + (reference if slash else _LIBRARY + reference), _LOCAL + reference]
    spelled: dict[str, None] = {}
    for base in bases:
        spelled[base] = None
        if base.endswith(_LATEST):
            spelled[base.removesuffix(_LATEST)] = None
        elif ":" not in base.rpartition("/")[2]:
            spelled[base + _LATEST] = None
    return tuple(spelled)


def check_name(name: str) -> str:
    """Return ``name``. Raises UsageError unless other tools accept it as the name of an image, too."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise UsageError(
            f"name {name[:80]!r}: no name of an image", "lower-case letters, digits, .-_ and /, then : and a tag if any"
        )
    return name
