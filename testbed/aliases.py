"""Names of a platform that is measured more than once in a run: ``container@again``, ``container@1a2b3c4d5e6f``.

What stands after the sign says how it differs from the platform before it: not at all (A/A, whose spread is the run's
noise floor), or by the revision of the code that runs it.
"""

from __future__ import annotations

_SIGN = "@"
_AGAIN = "again"


def name_again(platform: str) -> str:
    """Return the name of a platform that is measured once more, as it is."""
    return f"{platform}{_SIGN}{_AGAIN}"


def name_at(platform: str, commit: str) -> str:
    """Return the name of a platform that the code of another revision runs."""
    return f"{platform}{_SIGN}{commit[:12]}"


def find_original(name: str) -> str:
    """Return the platform that a name means, which is the name itself unless it is an alias."""
    return name.partition(_SIGN)[0]


def is_again(name: str) -> bool:
    """Return whether a name is that of a platform that is measured once more, as it is."""
    return name.partition(_SIGN)[2] == _AGAIN


def is_alias(name: str) -> bool:
    """Return whether a name means another platform, or the same in another way."""
    return _SIGN in name


def is_of_revision(name: str) -> bool:
    """Return whether a name is that of a platform that the code of another revision runs."""
    return is_alias(name) and not is_again(name)


def describe_alias(name: str, label: str) -> str:
    """Return the label of an alias, from that of the platform itself."""
    rest = name.partition(_SIGN)[2]
    return f"{label} ({rest})" if rest else label
