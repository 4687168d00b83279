"""What a registry wants to know of who asks: the header WWW-Authenticate (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re

from msgspec import Struct

_HEADER_CHARACTERS = 8192
_SCHEME = re.compile(r"[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|\s*$|(?=,))")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')


class Challenge(Struct, frozen=True):
    """One way to authenticate: ``scheme`` in lower case, ``parameters`` with names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a header, in its order; what cannot be read ends it."""
    header = header[:_HEADER_CHARACTERS]
    found: list[Challenge] = []
    at = 0
    while match := _SCHEME.match(header, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(header, at):
            value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
            parameters[pair[1].lower()] = value
            at = pair.end()
        found.append(Challenge(match[1].lower(), parameters))
    return tuple(found)


def best(challenges: tuple[Challenge, ...]) -> Challenge | None:
    """Return the challenge to answer: a bearer token before a password, None if it is neither."""
    known = {challenge.scheme: challenge for challenge in reversed(challenges)}
    return known.get("bearer") or known.get("basic")
