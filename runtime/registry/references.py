"""References to images, ``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``, by the grammar that all registries' clients share.

The grammar is that of the distribution project's package ``reference``. What stands before the first slash is a host if
it has a dot, a colon or a capital letter, or is ``localhost``; otherwise the name is a short one, whose registry the
settings decide (runtime.registry.settings).
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.output import shortened

DEFAULT_TAG = "latest"
# Of a repository's path (distribution-spec 1.1, "Pulling manifests").
_PATH_CHARACTERS = 255
_REFERENCE_CHARACTERS = 1024
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


class Reference(Struct, frozen=True):
    """The name of an image. ``host`` is empty in a short name; ``tag`` or ``digest`` is given, or both, and then the
    digest decides."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        name = f"{self.host}/{self.path}" if self.host else self.path
        return name + (self.tag and f":{self.tag}") + (self.digest and f"@{self.digest}")

    @property
    def target(self) -> str:
        """The last part of a manifest's address: the digest, or the tag."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Return the reference that ``text`` is, with DEFAULT_TAG if it names neither tag nor digest.

    Raises UsageError for what is not one.
    """
    if len(text) > _REFERENCE_CHARACTERS:
        raise _refused(text, f"it has more than {_REFERENCE_CHARACTERS} characters")
    rest, has_digest, digest = text.partition("@")
    if has_digest and not DIGEST.fullmatch(digest):
        raise _refused(text, "after @ comes a digest: sha256: and 64 digits of lower case, or sha512: and 128")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon is that of a port
        name, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise _refused(text, "a tag has letters, digits, _, . and -, at most 128, and begins with a letter, digit or _")
    host, path = split_host(name)
    if host and not is_host(host):
        raise _refused(text, f"{shortened(host)!r} is not a host")
    if not _PATH.fullmatch(path) or len(path) > _PATH_CHARACTERS:
        hint = "lower case" if _PATH.fullmatch(path.lower()) else "letters and digits, between them . _ __ or -"
        raise _refused(text, f"the parts of its path are {hint}, at most {_PATH_CHARACTERS} characters in all")
    if not host and _IMAGE_ID.fullmatch(path):
        raise _refused(text, "64 hexadecimal digits are the id of an image, not a name")
    return Reference(host, path, tag or ("" if digest else DEFAULT_TAG), digest)


def split_host(name: str) -> tuple[str, str]:
    """Return the host of a name without tag, empty if it is a short one, and its path."""
    first, slash, rest = name.partition("/")
    is_named = slash and (set(first) & set(".:[") or first == "localhost" or first.lower() != first)
    return (first, rest) if is_named else ("", name)


def is_host(text: str) -> bool:
    """Return whether ``text`` is ``HOST`` or ``HOST:PORT``."""
    return _HOST.fullmatch(text) is not None and 0 < int(text.rpartition(":")[2] if _has_port(text) else "1") < 65536


def is_path(text: str) -> bool:
    """Return whether ``text`` is a repository's path."""
    return len(text) <= _PATH_CHARACTERS and _PATH.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Return whether ``text`` is a tag."""
    return _TAG.fullmatch(text) is not None


def with_host(reference: Reference, host: str, prefix: str = "") -> Reference:
    """Return a short name's reference at ``host``, its path below ``prefix``."""
    return replace(reference, host=host, path=f"{prefix}/{reference.path}" if prefix else reference.path)


def _has_port(text: str) -> bool:
    return ":" in text.rpartition("]")[2]


def _refused(text: str, why: str) -> UsageError:
    return UsageError(f"{shortened(text)!r} is not an image's name: {why}", "[HOST[:PORT]/]PATH[:TAG][@DIGEST]")
