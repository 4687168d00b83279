"""The mount options of the runtime-spec's table (1.3, config.md, "Linux mount options") as bits for the kernel."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import Struct

from runtime.errors import UsageError
from runtime.plan import constants as k

# name: (MS_ bit for mount(2), MOUNT_ATTR_ bit for mount_setattr(2), whether it is set)
_FLAGS = {
    "ro": (k.MS_RDONLY, k.MOUNT_ATTR_RDONLY, True),
    "rw": (k.MS_RDONLY, k.MOUNT_ATTR_RDONLY, False),
    "nosuid": (k.MS_NOSUID, k.MOUNT_ATTR_NOSUID, True),
    "suid": (k.MS_NOSUID, k.MOUNT_ATTR_NOSUID, False),
    "nodev": (k.MS_NODEV, k.MOUNT_ATTR_NODEV, True),
    "dev": (k.MS_NODEV, k.MOUNT_ATTR_NODEV, False),
    "noexec": (k.MS_NOEXEC, k.MOUNT_ATTR_NOEXEC, True),
    "exec": (k.MS_NOEXEC, k.MOUNT_ATTR_NOEXEC, False),
    "nodiratime": (k.MS_NODIRATIME, k.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (k.MS_NODIRATIME, k.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (k.MS_NOSYMFOLLOW, k.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (k.MS_NOSYMFOLLOW, k.MOUNT_ATTR_NOSYMFOLLOW, False),
}
# Access times are a field of MOUNT_ATTR_, of which one value is chosen; relatime is 0.
_TIMES = {
    "noatime": (k.MS_NOATIME, k.MOUNT_ATTR_NOATIME),
    "strictatime": (k.MS_STRICTATIME, k.MOUNT_ATTR_STRICTATIME),
    "relatime": (k.MS_RELATIME, 0),
    "atime": (0, 0),
    "norelatime": (0, 0),
    "nostrictatime": (0, 0),
}
# Options of the superblock; a bind has none of its own and ignores them, as mount(8) says.
_SUPERBLOCK = {
    "sync": (k.MS_SYNCHRONOUS, True),
    "async": (k.MS_SYNCHRONOUS, False),
    "dirsync": (k.MS_DIRSYNC, True),
    "lazytime": (k.MS_LAZYTIME, True),
    "nolazytime": (k.MS_LAZYTIME, False),
    "silent": (k.MS_SILENT, True),
    "loud": (k.MS_SILENT, False),
    "mand": (k.MS_MANDLOCK, True),
    "nomand": (k.MS_MANDLOCK, False),
    "iversion": (k.MS_I_VERSION, True),
    "noiversion": (k.MS_I_VERSION, False),
}
PROPAGATION = {"private": k.MS_PRIVATE, "shared": k.MS_SHARED, "slave": k.MS_SLAVE, "unbindable": k.MS_UNBINDABLE}
_OTHERS = ("bind", "rbind", "defaults", "remount", "idmap", "ridmap", "tmpcopyup")
_RECURSIVE = ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "nosymfollow",
              "symfollow", "noatime", "atime", "relatime", "norelatime", "strictatime", "nostrictatime")  # fmt: skip
NAMES = tuple(
    sorted(
        {*_FLAGS, *_TIMES, *_SUPERBLOCK, *PROPAGATION, *_OTHERS}
        | {f"r{name}" for name in PROPAGATION}
        | {f"r{name}" for name in _RECURSIVE if name not in ("relatime",)}
        | {"rrelatime"}
    )
)


class MountOptions(Struct, frozen=True):
    """The parsed options of one mount.

    ``flags`` are MS_ bits for mount(2). ``set`` and ``clear`` are MOUNT_ATTR_ bits for mount_setattr(2) on the mount,
    ``set_all`` and ``clear_all`` on its whole tree. ``propagation`` is an MS_ bit or 0; ``data`` holds the file
    system's own options.
    """

    flags: int = 0
    set: int = 0
    clear: int = 0
    set_all: int = 0
    clear_all: int = 0
    propagation: int = 0
    propagate_all: bool = False
    bind: bool = False
    recursive: bool = False
    idmap: str = ""
    copy_up: bool = False
    remount: bool = False
    data: str = ""


@lru_cache(maxsize=256)
def parse(options: tuple[str, ...], place: str = "options") -> MountOptions:
    """Parse the options of one mount; later ones override earlier. Raises UsageError naming ``place`` for options that
    exclude each other."""
    found: dict[str, int] = dict.fromkeys(("flags", "set", "clear", "set_all", "clear_all", "propagation"), 0)
    switches: dict[str, bool] = {}
    data: list[str] = []
    idmap = ""
    for option in options:
        if option in _FLAGS:
            bit, attribute, on = _FLAGS[option]
            found["flags"] = found["flags"] | bit if on else found["flags"] & ~bit
            _toggle(found, "set", "clear", attribute, on)
        elif option in _TIMES:
            bit, attribute = _TIMES[option]
            found["flags"] |= bit
            found["clear"] |= k.MOUNT_ATTR_ATIME
            found["set"] = found["set"] & ~k.MOUNT_ATTR_ATIME | attribute
        elif option in _SUPERBLOCK:
            bit, on = _SUPERBLOCK[option]
            found["flags"] = found["flags"] | bit if on else found["flags"] & ~bit
        elif option in PROPAGATION or (option[1:] in PROPAGATION and option[0] == "r"):
            found["propagation"] = PROPAGATION.get(option) or PROPAGATION[option[1:]]
            switches["propagate_all"] = option not in PROPAGATION
        elif option in _OTHERS:
            if option in ("bind", "rbind"):
                switches.update(bind=True, recursive=option == "rbind")
            elif option in ("idmap", "ridmap"):
                idmap = option
            elif option == "remount":
                switches["remount"] = True
            elif option == "tmpcopyup":
                switches["copy_up"] = True
        elif option[:1] == "r" and option[1:] in _FLAGS:
            _toggle(found, "set_all", "clear_all", _FLAGS[option[1:]][1], _FLAGS[option[1:]][2])
        elif option[:1] == "r" and option[1:] in _TIMES:
            found["clear_all"] |= k.MOUNT_ATTR_ATIME
            found["set_all"] = found["set_all"] & ~k.MOUNT_ATTR_ATIME | _TIMES[option[1:]][1]
        else:
            data.append(option)
    if switches.get("bind") and switches.get("copy_up"):
        raise UsageError(f"{place}: tmpcopyup is for a new tmpfs, and this is a bind mount")
    numbers: dict[str, Any] = {**found, **switches}
    return MountOptions(**numbers, idmap=idmap, data=",".join(data))


def _toggle(found: dict[str, int], add: str, remove: str, bit: int, on: bool) -> None:
    found[add if on else remove] |= bit
    found[remove if on else add] &= ~bit
