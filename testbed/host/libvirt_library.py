"""Loads libvirt's library, so that it keeps to itself what is no error."""

from __future__ import annotations

import os
from typing import Any

from runtime.errors import PrerequisiteError


def load_libvirt() -> Any:
    """Return the libvirt module. Raises PrerequisiteError when the library is missing."""
    # Read when the library initialises. By itself it warns on stderr about every domain that is root's; it says that
    # in the domain's log, too.
    os.environ.setdefault("LIBVIRT_DEBUG", "4")
    # Read when a connection is opened: a daemon that the library starts for a session stays for two minutes.
    os.environ.setdefault("LIBVIRT_AUTOSTART", "0")
    try:
        import libvirt
    except ImportError as error:
        raise PrerequisiteError(f"load libvirt: {error}", "install libvirt0 and libvirt-python") from error
    return libvirt
