"""From JSON values to the configuration's frozen dataclasses and back, driven by their fields; strict throughout."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from runtime.errors import UsageError
from runtime.frozen import MISSING, Field, fields, is_frozen

T = TypeVar("T")
_INTEGERS = range(-(1 << 63), 1 << 64)  # what the specification's int64 and uint64 hold together
_KINDS = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}


def json_name(field: Field) -> str:
    """The name of a dataclass's field in JSON: camel case, or what its metadata says."""
    if "json" in field.metadata:
        return field.metadata["json"]
    first, *rest = field.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@cache
def _fields_of(kind: type) -> dict[str, Field]:
    """The fields by their JSON names."""
    return {json_name(field): field for field in fields(kind)}


@cache
def _hint(module: str, annotation: str) -> Any:
    """The type that an annotation means in its module, as typing.get_type_hints finds it."""
    return eval(annotation, sys.modules[module].__dict__)


def decode(kind: type[T], value: object, path: str) -> T:
    """``value``, parsed JSON, as a ``kind``. Raises UsageError that names the place for anything that does not fit."""
    if not isinstance(value, dict):
        raise UsageError(f"{path or 'config.json'}: {_word(value)}, where an object is expected")
    known = _fields_of(kind)  # type: ignore[arg-type]  # a class is hashable
    unknown = value.keys() - known.keys()
    if unknown:
        raise UsageError(
            f"{_join(path, min(unknown))}: unknown field", "the runtime-spec 1.2 for Linux has no such field"
        )
    found: dict[str, Any] = {}
    for name, field in known.items():
        if value.get(name) is not None:
            hint = _hint(kind.__module__, field.annotation)
            found[field.name] = _value(hint, value[name], _join(path, name))
        elif field.required:
            raise UsageError(f"{_join(path, name)}: missing")
    return kind(**found)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _word(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _value(hint: Any, value: object, path: str) -> Any:
    origin = get_origin(hint)
    if origin is types.UnionType:  # T | None
        (hint,) = (part for part in get_args(hint) if part is not type(None))
        return _value(hint, value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{path}: {_word(value)}, where a list is expected")
        return tuple(_value(get_args(hint)[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, dict):
            raise UsageError(f"{path}: {_word(value)}, where an object is expected")
        return {
            _value(str, key, path): _value(get_args(hint)[1], item, _join(path, key)) for key, item in value.items()
        }
    if is_frozen(hint):
        return decode(hint, value, path)
    return _scalar(hint, value, path)


def _scalar(hint: type, value: object, path: str) -> object:
    if type(value) is not hint:
        raise UsageError(f"{path}: {_word(value)}, where {_KINDS[hint]} is expected")
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{path}: {_word(value)} holds a NUL byte")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{path}: {_word(value)} is not text that UTF-8 can hold")
    if hint is int and value not in _INTEGERS:
        raise UsageError(f"{path}: {_word(value)} does not fit into 64 bits")
    return value


def encode(value: Any) -> Any:
    """A dataclass as JSON values, without the fields that have their defaults."""
    if is_frozen(type(value)):
        found = {}
        for field in fields(type(value)):
            item = getattr(value, field.name)
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if item != default:
                found[json_name(field)] = encode(item)
        return found
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    return value
