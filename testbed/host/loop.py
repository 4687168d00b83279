"""Block devices made of files (loop(4)), which are gone when nobody has them open any more."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_SET_FD, _SET_STATUS, _GET_FREE, _CLR_FD, _AUTOCLEAR = 0x4C00, 0x4C04, 0x4C82, 0x4C01, 4
_INFO_BYTES, _FLAGS_AT = 232, 52
# Others may take the device that was free a moment ago.
_ATTEMPTS = 8


def attach(file: Path, *, writable: bool) -> int:
    """Make a block device of a file and return it, open; it is gone when it is closed, however that happens.

    /proc/self/fd says which it is. Raises OSError.
    """
    mode = os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(file, mode)
    try:
        for attempt in range(_ATTEMPTS):
            device = os.open(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}", mode)
            try:
                fcntl.ioctl(device, _SET_FD, backing)
            except OSError:
                os.close(device)
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            info = bytearray(_INFO_BYTES)
            struct.pack_into("=I", info, _FLAGS_AT, _AUTOCLEAR)
            try:
                fcntl.ioctl(device, _SET_STATUS, bytes(info))
            except OSError:
                fcntl.ioctl(device, _CLR_FD)
                os.close(device)
                raise
            return device
        raise AssertionError("the loop returns or raises")
    finally:
        os.close(control)
        os.close(backing)
