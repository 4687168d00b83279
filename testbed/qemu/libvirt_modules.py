"""The parts of libvirt that it loads late, announced to it early.

Libvirt distrusts what it knows of an emulator when a module of its own has changed since, and takes note of a
module's change time when it loads it. The one that looks into qcow2 files is loaded by the first guest that has one.
When that is newer than the rest (a package of its own, installed later), all is asked again in the middle of the
next start, which then waits for QEMUs that nobody reaps: a minute and a half (libvirt 9.0, src/util/virmodule.c).
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_DRIVER = re.compile(r"\S*/connection-driver/libvirt_driver_qemu\.so$", re.MULTILINE)
_STORAGE = Path("storage-file", "libvirt_storage_file_fs.so")


def note_storage_module() -> bool:
    """Have libvirt take note of its storage module now, before it learns anything; False where it is built in.

    To be called when the QEMU driver is loaded. The function is libvirt's own (LIBVIRT_PRIVATE): a release without
    it goes without.
    """
    driver = _DRIVER.search(Path("/proc/self/maps").read_text())
    if driver is None:
        return False
    module = Path(driver.group()).parent.parent / _STORAGE
    try:
        note = ctypes.CDLL("libvirt.so.0").virUpdateSelfLastChanged
    except (OSError, AttributeError):
        return False
    note.argtypes, note.restype = [ctypes.c_char_p], None
    if module.exists():
        note(bytes(module))
    return module.exists()
