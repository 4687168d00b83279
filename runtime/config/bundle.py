"""Reading a bundle's config.json, whoever wrote it: sizes and depth are limited, doubled names are errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.config.decode import decode
from runtime.config.process import Process
from runtime.config.types import Config
from runtime.errors import UsageError

_LIMIT_BYTES = 4 << 20  # a hundred times the largest that engines write
_DEPTH = 32
_OTHER_SYSTEMS = ("solaris", "windows", "vm", "zos", "freebsd")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise UsageError(f"{next(name for name in names if names.count(name) > 1)}: the field is there twice")
    return found


def _constant(text: str) -> object:
    raise UsageError(f"{text} is not JSON")


def read_json(path: Path) -> object:
    """The file's JSON value. Raises UsageError for what is not JSON, is too large, or is nested too deeply."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"read {path}: {error.strerror}", "give the bundle's directory with --bundle") from error
    if len(data) > _LIMIT_BYTES:
        raise UsageError(f"read {path}: larger than {_LIMIT_BYTES} bytes")
    try:
        value = json.loads(data, object_pairs_hook=_pairs, parse_constant=_constant)
    except UsageError as error:
        raise UsageError(f"read {path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"read {path}: nested more than {_DEPTH} levels deep") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, a number of too many digits
        raise UsageError(f"read {path}: {error}") from error
    if _deeper(value, _DEPTH):
        raise UsageError(f"read {path}: nested more than {_DEPTH} levels deep")
    return value


def _deeper(value: object, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            item
            for parent in layer
            for item in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
        if not layer:
            return False
    return True


def load(bundle: Path, name: str = "config.json") -> Config:
    """The configuration in the bundle's directory, in the file ``name``. Raises UsageError, naming the field that is
    wrong."""
    path = bundle / name
    value = read_json(path)
    if isinstance(value, dict):
        for name in _OTHER_SYSTEMS:
            if name in value:
                raise UsageError(f"{path}: {name}: this runtime starts Linux containers only")
    try:
        config = decode(Config, value, "")
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
    if config.oci_version.split(".")[0] != "1":
        raise UsageError(f"{path}: ociVersion: {config.oci_version!r} is not a version 1 of the runtime-spec")
    return config


def load_process(path: Path) -> Process:
    """A process object from a file, as ``exec --process`` takes it."""
    try:
        return decode(Process, read_json(path), "process")
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
