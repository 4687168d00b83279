"""A disk that a PC's firmware boots a guest's kernel from, for hypervisors that are not handed a kernel as a file.

Its boot area is GRUB, whose configuration is in its core image; its one partition is a tar archive, which GRUB reads:
the kernel and the RAM disk that all guests share, and behind them what is a guest's own. So both parts are files whose
bytes follow each other on the disk, and the first, which is large, is made once.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError
from vm_images.guest import COMMAND_LINE, Guest
from vm_images.master_boot_record import SECTOR_BYTES, make_boot_area

# The partition reaches to the disk's end, whatever is in it; it is so large for the sake of _CONFIGURATION.
DISK_BYTES, _TOO_MUCH_BYTES = 4 << 30, 15 << 28
_SIGNATURE = 0x7E57BED0
_FOLDER = Path("/usr/lib/grub/i386-pc")
_PROGRAM = "grub-mkimage"
_MODULES = ("biosdisk", "part_msdos", "tar", "linux", "testload")
# What GRUB has read of the kernel stays in its cache, at the end of the memory, where the RAM disk has to be: beside
# the 52 MiB that a Debian's kernel begins with, there is not room for both in 80 MiB. It gives the cache up when it
# runs out of memory, which reading 3.75 GiB at once is sure to do: so much is never in one piece where a PC's devices
# have their part of 4 GiB, too. It says so to nobody, and goes on.
_CONFIGURATION = f"""\
linux (hd0,msdos1)/kernel {COMMAND_LINE}
testload (hd0)0+{_TOO_MUCH_BYTES // SECTOR_BYTES}
initrd (hd0,msdos1)/shared (hd0,msdos1)/own
boot
"""


class Grub(Struct, frozen=True):
    """GRUB for a PC's BIOS as it is installed here: the program that makes its images, and the folder of its parts."""

    program: str
    folder: Path


def find_grub(folder: Path = _FOLDER) -> Grub:
    """Return GRUB. Raises PrerequisiteError without it."""
    program = shutil.which(_PROGRAM)
    if program is None or not (folder / "boot.img").is_file():
        missing = f"no {_PROGRAM} on the PATH" if program is None else f"no boot.img in {folder}"
        raise PrerequisiteError(f"make a disk that boots: {missing}", "apt-get install grub-pc-bin grub-common")
    return Grub(program, folder)


def make_shared_part(grub: Grub, kernel: Path, guest: Guest) -> bytes:
    """Return the disk's beginning, the same for all guests: GRUB, the kernel, a bzImage, and the shared RAM disk.

    Raises PrerequisiteError when GRUB's program does not make its image.
    """
    with tempfile.TemporaryDirectory(prefix="testbed-") as scratch:
        configuration, core = Path(scratch, "configuration"), Path(scratch, "core")
        configuration.write_text(_CONFIGURATION)
        command = [
            *(grub.program, "--directory", str(grub.folder), "--format", "i386-pc", "--prefix", "(hd0,msdos1)/"),
            *("--config", str(configuration), "--output", str(core), *_MODULES),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            raise PrerequisiteError(f"{_PROGRAM}: {' '.join(said)}", "reinstall grub-pc-bin and grub-common")
        area = make_boot_area((grub.folder / "boot.img").read_bytes(), core.read_bytes(), DISK_BYTES, _SIGNATURE)
    return area + _member("kernel", kernel.read_bytes()) + _member("shared", guest.base)


def make_own_part(archive: bytes) -> bytes:
    """Return what follows it on the disk of a guest: the ``archive`` that its kernel unpacks after the shared one."""
    return _member("own", archive) + bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, content: bytes) -> bytes:
    """Return a file of a tar archive, whole sectors."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
