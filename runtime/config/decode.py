"""Convert JSON values to the objects of a configuration, and back.

The type of a field says which values it may hold, and only this module checks them. Each number has the runtime-spec's
type, narrowed to the kernel's range where the kernel would truncate a larger number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from runtime.errors import UsageError

Warn = Callable[[str], None]
T = TypeVar("T", bound="Object")
_INTEGERS = range(-(1 << 63), 1 << 64)  # the ranges of the specification's int64 and uint64 together
_MOST_WARNINGS = 10

Uint16 = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]
Uint32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Uint64 = Annotated[int, Meta(ge=0)]  # _INTEGERS bounds it above
Int32 = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int64 = Annotated[int, Meta(le=(1 << 63) - 1)]  # _INTEGERS bounds it below
# A user's or group's number. (uid_t)-1 is not one: setresuid(2) leaves the user unchanged then, which is root.
LAST_ID = (1 << 32) - 2
Id = Annotated[int, Meta(ge=0, le=LAST_ID)]
# The kernel's device numbers have 12 and 20 bits (linux/kdev_t.h); mknod(2) would make another device of larger ones.
DeviceMajor = Annotated[int, Meta(ge=0, le=(1 << 12) - 1)]
DeviceMinor = Annotated[int, Meta(ge=0, le=(1 << 20) - 1)]
# In a rule -1 stands for every number, as a missing field does: engines follow runc in this.
RuleMajor = Annotated[int, Meta(ge=-1, le=(1 << 12) - 1)]
RuleMinor = Annotated[int, Meta(ge=-1, le=(1 << 20) - 1)]
Bytes = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]  # -1: no limit
Swappiness = Annotated[int, Meta(ge=0, le=100)]
Seconds = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]  # of a hook's timeout, which "MUST be greater than zero"
Nanoseconds = Annotated[int, Meta(ge=0, le=999_999_999)]  # of a clock's offset (kernel/time/namespace.c)
OomScoreAdjustment = Annotated[int, Meta(ge=-1000, le=1000)]
Priority = Annotated[int, Meta(ge=0, le=99)]  # sched(7)
IOLevel = Annotated[int, Meta(ge=0, le=7)]
WindowSize = Uint16  # struct winsize
ArgumentIndex = Annotated[int, Meta(ge=0, le=5)]  # of a system call
Errno = Uint16  # SECCOMP_RET_DATA


class Object(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """An object of the configuration. In JSON its fields have their names in camel case, or those that they declare."""


def no_warning(_: str) -> None:
    """Ignore a warning: the default of functions that take a ``warn``."""


def decode(kind: type[T], value: object, path: str, warn: Warn = no_warning) -> T:
    """Convert ``value``, parsed JSON, to a ``kind``. A null counts as a missing property.

    ``warn`` is called for unknown properties, which the specification requires to be ignored (config.md,
    "Extensibility"). Raises UsageError for a value that does not fit, naming its location, which begins with ``path``.
    """
    try:
        plain = _checked(value)
    except _Unfit as error:
        raise UsageError(f"{error.place(path)}: {error}") from None
    try:
        try:
            return msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise
        unknown = list(_remove_unknown(plain, kind, path))
        for place in unknown[:_MOST_WARNINGS]:
            warn(f"{place}: unknown, and ignored")
        if len(unknown) > _MOST_WARNINGS:
            warn(f"{len(unknown) - _MOST_WARNINGS} more properties are unknown, and ignored")
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        place = (path + place.removesuffix("`")).lstrip(".")
        message = message[0].lower() + message[1:]
        raise UsageError(f"{place}: {message}" if place else message) from error


def _remove_unknown(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Remove the properties that the types do not have, and yield their locations. Values of a wrong type are left to
    ``msgspec.convert``."""
    inner: tuple[Any, ...] = getattr(kind, "__args__", ())
    if isinstance(kind, type) and issubclass(kind, Object):
        if isinstance(value, dict):
            fields = {field.encode_name: field.type for field in structs.fields(kind)}
            for name in list(value):
                place = f"{path}.{name}" if path else name
                if name in fields:
                    yield from _remove_unknown(value[name], fields[name], place)
                else:
                    del value[name]
                    yield short(place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _remove_unknown(item, inner[0] if inner else None, f"{path}[{index}]")
    elif getattr(kind, "__origin__", None) is Mapping:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from _remove_unknown(item, inner[1], f"{path}.{name}")
    else:
        for each in inner:  # each member of a union
            yield from _remove_unknown(value, each, path)


class _Unfit(Exception):
    """A value that cannot be used: the message says why, and ``way`` is the path to it, innermost name first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.way: list[str | int] = []

    def place(self, path: str) -> str:
        for name in reversed(self.way):
            path += f"[{name}]" if isinstance(name, int) else f".{name}" if path else name
        return short(path)


def _checked(value: object) -> object:
    """Return the value without nulls. Raises _Unfit for strings that the kernel cannot take and for integers of more
    than 64 bits."""
    if isinstance(value, str):
        return _text(value)
    way: str | int = ""
    try:
        if isinstance(value, dict):
            fields = {}
            for name, item in value.items():
                way = name
                if item is not None:
                    fields[_text(name)] = _checked(item)
            return fields
        if isinstance(value, list | tuple):
            items = []
            for way, item in enumerate(value):  # noqa: B007, which overlooks the use in the except clause
                items.append(_checked(item))
            return items
    except _Unfit as error:
        error.way.append(way)
        raise
    if isinstance(value, int) and value not in _INTEGERS:
        raise _Unfit(f"{_word(value)} does not fit into 64 bits")
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise _Unfit(f"{_word(value)} holds a NUL byte")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _Unfit(f"{_word(value)} is not text that UTF-8 can hold")
    return value


def _word(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def short(path: str) -> str:
    """Return a location in a file on one line of bounded length: its names are chosen by whoever wrote the file."""
    path = path if path.isprintable() else repr(path)[1:-1]
    return path if len(path) <= 200 else f"{path[:199]}…"


def checked(value: T, path: str) -> T:
    """Check the numbers of ``value``, an object made of arguments, and return it. Raises as ``decode`` does."""
    return decode(type(value), msgspec.to_builtins(value), path)


def is_number(text: str) -> bool:
    """Return whether ``text`` is a decimal number of at most 20 digits, which is the length of 2**64 - 1."""
    return text.isascii() and text.isdigit() and len(text) <= 20


def encode(value: Object) -> Any:
    """Return the object as JSON values, without the fields that have their default."""
    return msgspec.json.decode(msgspec.json.encode(value))
