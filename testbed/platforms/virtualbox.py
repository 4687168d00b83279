"""Services as machines of VirtualBox's."""

from __future__ import annotations

VIRTUALBOX = "virtualbox"
