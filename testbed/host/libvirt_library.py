"""The libvirt library: loaded in one way, wherever it is first needed, and which version it is."""

from __future__ import annotations

import os
from typing import Any

from runtime.errors import PrerequisiteError


def load_libvirt() -> Any:
    """Return the libvirt module. Raises PrerequisiteError when the library is missing."""
    # Read when the library initialises. By itself it warns on stderr about every domain that is root's.
    os.environ.setdefault("LIBVIRT_DEBUG", "4")
    try:
        import libvirt
    except ImportError as error:
        raise PrerequisiteError(f"load libvirt: {error}", "install libvirt0 and libvirt-python") from error
    return libvirt


def format_version(number: int) -> str:
    """Format a version number of libvirt's: major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def read_libvirt_version() -> str | None:
    """Return the version of the libvirt library, ``9.0.0``; None when it cannot be loaded."""
    try:
        return format_version(int(load_libvirt().getVersion()))
    except PrerequisiteError:
        return None
