"""The rungs by their names as platforms. They stand here, too, so that nobody has to read their files for a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# The rungs that are made of walls (testbed.rungs.model.Isolation), by year.
RUNGS = (
    *("chroot-1982", "jail-2000", "vserver-2001", "zones-2005", "openvz-2005", "lxc-2008", "docker-2013"),
    *("lmctfy-2013", "rootless", "sandboxed"),
)
# The rungs that a platform of another name stands for.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "micro-2018": "vm-micro",
        "containers-in-a-vm": "vm-containers",
        "restored": "vm-restored",
        "virtualbox-2007": "virtualbox",
        "vmware-1999": "vmware",
    }
)
