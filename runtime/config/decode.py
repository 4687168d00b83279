"""From JSON values to the objects of a configuration and back; strict throughout."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from runtime.errors import UsageError

T = TypeVar("T", bound="Object")
_INTEGERS = range(-(1 << 63), 1 << 64)  # what the specification's int64 and uint64 hold together


class Object(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """An object of the configuration. Its fields' names in JSON are theirs in camel case, unless they say another."""


def decode(kind: type[T], value: object, path: str) -> T:
    """``value``, parsed JSON, as a ``kind``; null is what is not there.

    Raises UsageError that names the place, from ``path`` on, for anything that does not fit.
    """
    try:
        return msgspec.convert(_checked(value, path), kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        place = (path + place.removesuffix("`")).lstrip(".")
        hint = "the runtime-spec 1.2 for Linux has no such field" if "unknown field" in message else ""
        message = message[0].lower() + message[1:]
        raise UsageError(f"{place}: {message}" if place else message, hint) from error


def _checked(value: object, path: str) -> object:
    """The value without nulls, whose strings a kernel can take and whose integers have 64 bits."""
    if isinstance(value, dict):
        return {
            _text(name, path): _checked(item, f"{path}.{name}" if path else name)
            for name, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_checked(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int) and value not in _INTEGERS:
        raise UsageError(f"{path}: {_word(value)} does not fit into 64 bits")
    return value


def _text(value: str, path: str) -> str:
    if "\0" in value:
        raise UsageError(f"{path}: {_word(value)} holds a NUL byte")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{path}: {_word(value)} is not text that UTF-8 can hold")
    return value


def _word(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def encode(value: Object) -> Any:
    """The object as JSON values, without the fields that have their defaults."""
    return msgspec.json.decode(msgspec.json.encode(value))
