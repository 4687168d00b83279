"""Read a bundle's config.json, which nobody vouches for: size and depth are limited, duplicate names are errors."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from runtime.config.decode import Warn, decode, no_warning, short
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.types import Config
from runtime.errors import UsageError

_LIMIT_BYTES = 4 << 20  # a hundred times the largest that engines write
_DEPTH = 32
_OTHER_SYSTEMS = ("solaris", "windows", "vm", "zos", "freebsd")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise UsageError(f"{short(name)}: the field is there twice")
            seen.add(name)
    return unique


def _constant(text: str) -> object:
    raise UsageError(f"{text} is not JSON")


def read_text(path: Path, *, stream: bool = False) -> str:
    """Return the text of a JSON file, which is UTF-8 without a byte order mark (RFC 8259, 8.1).

    With ``stream`` the file may also be a pipe. Raises UsageError if it cannot be read or is too large.
    """
    hint = "" if stream else "give the bundle's directory with --bundle"
    try:
        # opening a fifo would block
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if stream else os.O_NONBLOCK))
        with open(descriptor, "rb") as file:
            if not stream and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"read {path}: not a regular file", hint)
            data = file.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UsageError(f"read {path}: {getattr(error, 'strerror', None) or error}", hint) from error
    if len(data) > _LIMIT_BYTES:
        raise UsageError(f"read {path}: larger than {_LIMIT_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"read {path}: byte {error.start} is not UTF-8, which JSON files are in") from error


def parse_json(text: str, path: Path) -> object:
    """Return the JSON value of a file's text. Raises UsageError if it is not JSON or is nested too deeply."""
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except UsageError as error:
        raise UsageError(f"read {path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"read {path}: nested more than {_DEPTH} levels deep") from error
    except ValueError as error:  # JSONDecodeError, a number of too many digits
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


def parse_config(text: str, path: Path, warn: Warn = no_warning) -> Config:
    """Return the configuration in ``text``, which was read from ``path``.

    Raises UsageError naming the field that is wrong. ``warn`` is called for properties that the specification does not
    define.
    """
    value = parse_json(text, path)
    if isinstance(value, dict):
        for name in _OTHER_SYSTEMS:
            if name in value:
                raise UsageError(f"{path}: {name}: this runtime starts Linux containers only")
    config: Config = _decoded(Config, value, "", path, warn)
    if config.oci_version.split(".")[0] != "1":
        raise UsageError(f"{path}: ociVersion: {config.oci_version!r} is not a version 1 of the runtime-spec")
    return config


def _decoded(kind: type[Any], value: object, name: str, path: Path, warn: Warn) -> Any:
    try:
        return decode(kind, value, name, lambda text: warn(f"{path}: {text}"))
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error


def load(bundle: Path, name: str = "config.json", warn: Warn = no_warning) -> Config:
    """Read the configuration in the file ``name`` of the bundle's directory; errors are those of ``parse_config``."""
    path = bundle / name
    return parse_config(read_text(path), path, warn)


def load_process(path: Path, warn: Warn = no_warning) -> Process:
    """Read a process object from a file, as ``exec --process`` takes it. Raises UsageError."""
    process: Process = _decoded(Process, parse_json(read_text(path, stream=True), path), "process", path, warn)
    return process


def load_resources(path: Path, warn: Warn = no_warning) -> Resources:
    """Read a resources object from a file or a pipe, as ``update --resources`` takes it. Raises UsageError."""
    value = parse_json(read_text(path, stream=True), path)
    resources: Resources = _decoded(Resources, value, "resources", path, warn)
    return resources
