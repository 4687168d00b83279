"""VirtualBox as it is installed here, and what it needs of the host before any of its machines can be started."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError
from runtime.files import read_bounded
from vm_images.boot_disk import find_grub

# Where Debian's, Ubuntu's, Arch's and its maker's packages have its programs, and where its maker's installer has them.
FOLDERS = (Path("/usr/lib/virtualbox"), Path("/opt/VirtualBox"))
MANAGER, SERVER, HEADLESS = "VBoxManage", "VBoxSVC", "VBoxHeadless"
_DEVICE = Path("/dev/vboxdrv")
_FILTER = Path("/sys/module/vboxnetflt")
_PROCESSORS = Path("/proc/cpuinfo")
_LONGEST = 1 << 20
_TIMEOUT_S = 60.0
# Since this one a machine's processors are the hardware's (its ChangeLog: "Removed software CPU virtualization").
_OLDEST = (6, 1)


class VirtualBox(Struct, frozen=True):
    """The ``folder`` of its programs, and what it says of its ``version``."""

    folder: Path
    version: str

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.folder / name)


def find_virtualbox(folders: Sequence[Path] = FOLDERS) -> VirtualBox:
    """Return VirtualBox as it is installed here. Raises PrerequisiteError without one that can be used."""
    folder = next((one for one in folders if (one / MANAGER).is_file()), None)
    if folder is None:
        raise PrerequisiteError(
            f"VirtualBox is not here: no {MANAGER} in {' or '.join(map(str, folders))}",
            "apt-get install virtualbox, where the distribution has it; the reference machine has it in any case: "
            "./invoke ladder --machine reference --rungs process,virtualbox-2007",
        )
    if missing := [name for name in (SERVER, HEADLESS) if not (folder / name).is_file()]:
        raise PrerequisiteError(f"{folder} has no {' and no '.join(missing)}", "install all of VirtualBox")
    command = [str(folder / MANAGER), "--version"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrerequisiteError(f"{' '.join(command)}: {error}", "reinstall VirtualBox") from error
    # Warnings about modules that are not loaded stand before it.
    said = done.stdout.strip().splitlines()[-1:]
    match = re.match(r"(\d+)\.(\d+)\.\d+", said[0]) if said else None
    if done.returncode or match is None:
        words = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:])
        raise PrerequisiteError(f"{' '.join(command)}: {words or 'it says no version'}", "reinstall VirtualBox")
    if (int(match[1]), int(match[2])) < _OLDEST:
        raise PrerequisiteError(f"VirtualBox {said[0]} is older than 6.1", "install a newer one")
    return VirtualBox(folder, said[0])


def require_virtualbox(
    folders: Sequence[Path] = FOLDERS,
    device: Path = _DEVICE,
    network: Path = _FILTER,
    processors: Path = _PROCESSORS,
) -> VirtualBox:
    """Return VirtualBox. Raises PrerequisiteError for what a machine of its would lack here, as far as that is known
    before one is started."""
    found = find_virtualbox(folders)
    if not re.search(rb"^flags\s*:.*\s(svm|vmx)(\s|$)", read_bounded(processors, _LONGEST), re.MULTILINE):
        raise PrerequisiteError(
            "VirtualBox needs virtualisation in hardware, and this host's processors have none (neither svm nor vmx)",
            "the reference machine has it: ./invoke ladder --machine reference --rungs process,virtualbox-2007",
        )
    if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
        raise PrerequisiteError(
            f"VirtualBox's module of the kernel is not loaded: there is no {device}",
            "modprobe vboxdrv; it is built for each kernel, by dkms or /sbin/vboxconfig",
        )
    if not network.is_dir():
        raise PrerequisiteError("VirtualBox's filter for network cards is not loaded", "modprobe vboxnetflt")
    find_grub()
    return found
