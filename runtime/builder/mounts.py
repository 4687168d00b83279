"""What ``RUN --mount`` says, as data (Docker's "Dockerfile reference", section "RUN --mount")."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from msgspec import Struct, field

TYPES = ("bind", "cache", "secret", "ssh", "tmpfs")
SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)(?:i?b)?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_KEYS: dict[str, tuple[str, ...]] = {
    "bind": ("from", "source", "target", "readonly", "readwrite"),
    "cache": ("id", "from", "source", "target", "readonly", "readwrite", "sharing", "mode", "uid", "gid"),
    "secret": ("id", "source", "target", "env", "required", "mode", "uid", "gid"),
    "ssh": ("id", "target", "required", "mode", "uid", "gid"),
    "tmpfs": ("target", "size", "readonly", "readwrite"),
}


class RunMount(Struct, frozen=True):
    """One mount of a RUN. ``source_name`` is the stage or image of ``from``, "" is the build context.

    ``mode``, ``uid`` and ``gid`` are None where the type's own apply; ``size_bytes`` 0 is no limit.
    """

    type: str
    target: str = ""
    source: str = ""
    source_name: str = ""
    id: str = ""
    env: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    size_bytes: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    key: tuple[str, ...] = field(default=())


def _fields(text: str) -> dict[str, str | None]:
    """Return keys and values in order; a key without an equals sign has None. Raises ValueError."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"--mount={text[:100]}: {error}") from error
    fields: dict[str, str | None] = {}
    for part in rows[0] if rows else ():
        key, equals, value = part.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        fields[key] = value if equals else None
    return fields


def source_stage(text: str) -> str:
    """Return the stage or image that a mount is ``from``; "" if there is none, or if the text is no mount."""
    try:
        return _fields(text).get("from") or ""
    except ValueError:
        return ""


def parse_mount(text: str, expand: Callable[[str], str]) -> RunMount:
    """Return what a value of ``--mount`` says; ``expand`` replaces variables in values. Raises ValueError."""
    fields = {key: value if value is None or key == "from" else expand(value) for key, value in _fields(text).items()}
    kind = (fields.pop("type", None) or "bind").lower()
    if kind not in TYPES:
        raise ValueError(f"--mount: unknown type {kind[:40]}; known: {', '.join(TYPES)}")
    for key, value in fields.items():
        if key not in _KEYS[kind]:
            raise ValueError(f"--mount: {kind} has no {key[:40]}; it has {', '.join(_KEYS[kind])}")
        if value is None and key not in ("readonly", "readwrite", "required"):
            raise ValueError(f"--mount: {key} needs a value")
    given = {key: value or "" for key, value in fields.items()}
    _check(kind, given)
    sharing = given.get("sharing", "shared")
    if sharing not in SHARING:
        raise ValueError(f"--mount: unknown sharing {sharing[:40]}; known: {', '.join(SHARING)}")
    name = given.get("id") or (given.get("source", "") if kind == "secret" else "")
    return RunMount(
        kind,
        target=given.get("target", ""),
        source="" if kind == "secret" else given.get("source", ""),
        source_name=given.get("from", ""),
        id=name or _own_id(kind, given.get("target", "")),
        env=given.get("env", ""),
        sharing=sharing,
        read_only=_is_read_only(kind, fields),
        required="required" in fields and _truth("required", fields["required"]),
        size_bytes=_size(given["size"]) if "size" in given else 0,
        mode=_number("mode", given["mode"], 8, 0o7777) if "mode" in given else None,
        uid=_number("uid", given.get("uid", "0"), 10, 2**32 - 2),
        gid=_number("gid", given.get("gid", "0"), 10, 2**32 - 2),
        key=tuple(f"{key}={value}" for key, value in sorted(fields.items())),
    )


def _check(kind: str, given: dict[str, str]) -> None:
    if kind in ("bind", "cache", "tmpfs") and not given.get("target"):
        raise ValueError(f"--mount: a {kind} needs a target")
    if kind == "secret":
        if given.get("source") and given.get("id"):
            raise ValueError("--mount: a secret has either a source or an id")
        if not (given.get("source") or given.get("id") or given.get("target")):
            raise ValueError("--mount: a secret needs an id, or a target that it is called after")


def _own_id(kind: str, target: str) -> str:
    if kind == "ssh":
        return "default"
    return target.rstrip("/").rpartition("/")[2] if kind == "secret" else target


def _is_read_only(kind: str, fields: dict[str, str | None]) -> bool:
    read_only = kind in ("bind", "secret", "ssh")
    for key, value in fields.items():
        if key == "readonly":
            read_only = _truth(key, value)
        elif key == "readwrite":
            read_only = not _truth(key, value)
    return read_only


def _truth(key: str, value: str | None) -> bool:
    if value is None:
        return True
    if value.lower() not in _TRUTH:
        raise ValueError(f"--mount: {key}={value[:20]} is neither true nor false")
    return _TRUTH[value.lower()]


def _number(key: str, text: str, base: int, most: int) -> int:
    if not re.fullmatch("[0-7]{1,11}" if base == 8 else "[0-9]{1,10}", text) or int(text, base) > most:
        raise ValueError(f"--mount: {key}={text[:20]} is no number" + (" in octal digits" if base == 8 else ""))
    return int(text, base)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"--mount: size={text[:20]} is no size such as 64m or 1g")
    return int(match[1]) * _UNITS[match[2]]
