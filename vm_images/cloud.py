"""A stock Debian as most people's virtual machines run it: firmware, boot loader, kernel, systemd, cloud-init.

The disk is made once, of the host's package sources, like the base image and by the same code. It has an MBR and one
ext4 partition, boots by SeaBIOS and GRUB (quicker under emulation than OVMF, whose firmware alone is 16 times
larger), and holds the packages and the kernel's command line that Debian's own cloud images have, less those that no
instance of ours uses: an SSH server, automatic upgrades, a mail-ready log. Nothing is mounted and no loop device is
used: mke2fs copies a directory, and the boot area is written as bytes. GRUB comes from the new system itself.

What an instance adds (its name, address and workload) is on its seed (``vm_images.seed``); each runs on a
copy-on-write overlay of the one disk, which nobody writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from runtime.atomic import partial, read_document, scratch
from runtime.config.default import DEFAULT_PATH
from runtime.errors import PrerequisiteError
from runtime.home import is_sealed
from runtime.images.base import Inputs, bootstrap, read_host, release_inputs
from runtime.images.layers import settle
from runtime.images.oci import EPOCH_S
from runtime.images.releases import Release, choose_release
from runtime.images.space import MIB, full_disk_reported, require_space
from vm_images.ext4 import correct_times, environment_at
from vm_images.master_boot_record import FIRST_PARTITION_SECTOR, SECTOR_BYTES, make_boot_area

# Counts up when this module changes what the disk holds.
_RECIPE = 2
# The kernel for virtual machines, by distribution.
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
PACKAGES = (
    *("initramfs-tools", "busybox", "zstd", "grub-pc-bin", "grub-common", "e2fsprogs"),
    *("systemd-sysv", "dbus", "udev", "libpam-systemd", "systemd-resolved", "netplan.io", "iproute2", "procps"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "login", "passwd", "sudo", "ca-certificates"),
)
# Those of Debian's cloud images (fai-config of the cloud team): the early console shows the kernel's first line.
KERNEL_ARGUMENTS = "console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 consoleblank=0"
# What GRUB's core needs to find its configuration and a kernel on the disk; more would only be read at every boot.
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "echo")
DISK_BYTES = 2048 * MIB
_NEEDED_BYTES = 2500 * MIB
_SERVICES = ("systemd-networkd.service", "systemd-resolved.service")
# Where an instance finds its identity; Debian's images list all clouds, of which cloud-init finds the one.
_CLOUD_CONFIGURATION = "datasource_list: [NoCloud, None]\n"
# What cloud-init's default configuration would set up, and complain about: neither locales nor SSH are installed.
_UNUSED_MODULES = ("locale", "ssh", "ssh-import-id", "set-passwords", "ssh-authkey-fingerprints", "keys-to-console")
_NAMESPACE = uuid.UUID("c0a3a5ce-5c0b-4cf9-8d3e-6b1f62a8f1d1")
_DESCRIPTION = "cloud.json"


class CloudDisk(Struct, frozen=True):
    """The stock system: its raw disk, and what it is. ``packages`` is their number, ``used_bytes`` their files'."""

    folder: Path
    codename: str
    kernel: str
    cloud_init: str
    packages: int
    used_bytes: int

    @property
    def path(self) -> Path:
        return self.folder / "disk.raw"


def grub_configuration(root: uuid.UUID) -> str:
    """Return /boot/grub/grub.cfg: one system, no menu, no waiting."""
    return (
        "set timeout=0\n"
        "menuentry 'Debian' {\n"
        "\techo 'Loading Linux ...'\n"
        f"\tlinux /vmlinuz root=UUID={root} ro {KERNEL_ARGUMENTS}\n"
        "\techo 'Loading initial ramdisk ...'\n"
        "\tinitrd /initrd.img\n"
        "}\n"
    )


def system_files(root: uuid.UUID) -> dict[str, str]:
    """Return the files that the packages leave to whoever installs them, by path."""
    return {
        "etc/fstab": f"UUID={root} / ext4 errors=remount-ro 0 1\n",
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1\tlocalhost\n",
        # Empty, not absent: systemd makes a new one at boot, but does not take it for the first boot of a new system.
        "etc/machine-id": "",
        "etc/cloud/cloud.cfg.d/90_testbed.cfg": _CLOUD_CONFIGURATION,
        "boot/grub/grub.cfg": grub_configuration(root),
    }


def without_modules(configuration: str, modules: Collection[str]) -> str:
    """Return cloud-init's configuration without the lines that list ``modules``."""
    lines = configuration.splitlines(keepends=True)
    return "".join(line for line in lines if line.strip().removeprefix("- ") not in modules)


def cloud_inputs() -> Inputs:
    """Return what this host would make the disk of. Raises PrerequisiteError as ``release_inputs``."""
    return release_inputs(packages=(kernel_package(choose_release("", read_host())), *PACKAGES))


def kernel_package(release: Release) -> str:
    """Return the name of the package that has a release's kernel for virtual machines."""
    return KERNELS[release.distribution]


def disk_key(inputs: Inputs) -> str:
    """Return the cache key: every input, and all that this module adds."""
    files = system_files(_NAMESPACE)
    document = [_RECIPE, inputs.key(), files, _UNUSED_MODULES, _GRUB_MODULES, DISK_BYTES, _SERVICES]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def ensure_cloud(guest_root: Path, progress: Callable[[str], None]) -> CloudDisk:
    """Return the disk below ``guest_root``, made now if its inputs are new (minutes, and about 250 MB of packages).

    Raises PrerequisiteError: no root, mmdebstrap or mke2fs missing, no package source that answers, no space.
    """
    folder = _find_sealed(guest_root) or _ensure_folder(guest_root, progress)
    disk = read_document(folder / _DESCRIPTION, CloudDisk, folder=folder)
    if disk is None:
        raise PrerequisiteError(f"{folder}: it has no {_DESCRIPTION}", "remove it: it is made again")
    return disk


def _find_sealed(guest_root: Path) -> Path | None:
    """Return the disk's folder in a sealed store, where there is one at most."""
    return next(guest_root.glob("cloud-*"), None) if is_sealed() else None


def _ensure_folder(guest_root: Path, progress: Callable[[str], None]) -> Path:
    inputs = cloud_inputs()
    key = disk_key(inputs)
    folder = guest_root / f"cloud-{key[:24]}"
    if not folder.exists():
        _make(inputs, key, folder, progress)
    return folder


def _make(inputs: Inputs, key: str, folder: Path, progress: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        raise PrerequisiteError("making the cloud image needs root", "run as root, or through sudo")
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_space(folder.parent, _NEEDED_BYTES, "making the cloud image")
    progress(f"cloud image: mmdebstrap {inputs.codename} with systemd and cloud-init")
    began = time.monotonic()
    with (
        full_disk_reported(folder.parent, "make the cloud image"),
        scratch(folder.with_suffix(".tree")) as work,
        partial(folder) as unfinished,
    ):
        work.mkdir(mode=0o700)  # set-user-ID programs are in it
        inside = work / "inside"
        inside.mkdir(mode=0o755)
        unfinished.mkdir()
        tree, began_s = inside / "root", time.time() - 1
        identity = uuid.uuid5(_NAMESPACE, key)
        bootstrap(inputs, inside, tree)
        core = _configure(tree, identity)
        settle(tree, began_s)
        disk = CloudDisk(unfinished, inputs.codename, *_describe(tree))
        boot = (tree / "usr/lib/grub/i386-pc/boot.img").read_bytes()
        write_disk(disk.path, tree, identity, make_boot_area(boot, core, DISK_BYTES, identity.fields[0]))
        described = {name: value for name, value in asdict(disk).items() if name != "folder"}
        (unfinished / _DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n")
    progress(f"cloud image: done in {time.monotonic() - began:.1f} s")


def _configure(tree: Path, identity: uuid.UUID) -> bytes:
    """Make the bootstrapped tree a system that boots by itself; return GRUB's core image."""
    for name, text in system_files(identity).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    configuration = tree / "etc/cloud/cloud.cfg"
    configuration.write_text(without_modules(configuration.read_text(), _UNUSED_MODULES))
    resolver = tree / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    _inside(tree, "systemctl", "enable", *_SERVICES)
    core = tree / "boot/grub/core.img"
    options = ("--format=i386-pc", f"--output=/{core.relative_to(tree)}", "--prefix=(hd0,msdos1)/boot/grub")
    _inside(tree, "grub-mkimage", *options, *_GRUB_MODULES)
    return core.read_bytes()


def _inside(tree: Path, *command: str) -> None:
    """Run one of the new system's own programs in it. Raises PrerequisiteError with what it says."""
    environment = {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8"}
    _run(["chroot", str(tree), *command], environment, f"make the cloud image: {command[0]}")


def _run(command: list[str], environment: dict[str, str], what: str) -> None:
    try:
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{what}: {error}", f"install the package that has {command[0]}") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr + error.stdout).strip()
        hint = "check the free space, and that the packages are the release's own"
        raise PrerequisiteError(f"{what}: {output}", hint) from error


def _describe(tree: Path) -> tuple[str, str, int, int]:
    """Return the kernel's release, cloud-init's version, the number of packages and the bytes of all files."""
    status = (tree / "var/lib/dpkg/status").read_text()
    cloud_init = re.search(r"^Package: cloud-init\n(?:[^\n]+\n)*?Version: (\S+)", status, re.MULTILINE)
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1 or cloud_init is None:
        raise PrerequisiteError(f"the cloud image has {len(kernels)} kernels or no cloud-init", "report this release")
    used_bytes = sum(path.lstat().st_blocks * 512 for path in tree.rglob("*"))
    packages = len(re.findall(r"^Package: ", status, re.MULTILINE))
    return kernels[0].name.removeprefix("vmlinuz-"), cloud_init.group(1), packages, used_bytes


def write_disk(path: Path, tree: Path, identity: uuid.UUID, area: bytes, size_bytes: int = DISK_BYTES) -> None:
    """Write the disk: the boot area, and behind it an ext4 file system with the tree, complete, so that no guest has to
    initialise its tables in the background. When the tree was read and changed here, which mke2fs takes over, is not in
    it."""
    path.touch()
    os.truncate(path, size_bytes)
    offset = FIRST_PARTITION_SECTOR * SECTOR_BYTES
    extended = f"offset={offset},hash_seed={identity},lazy_itable_init=0,lazy_journal_init=0"
    size = f"{(size_bytes - offset) // 1024}k"
    options = ["-q", "-F", "-t", "ext4", "-U", str(identity), "-E", extended, "-d", str(tree)]
    environment = {"PATH": DEFAULT_PATH, **environment_at(EPOCH_S)}
    _run(["mke2fs", *options, str(path), size], environment, "make the cloud image's file system")
    correct_times(path, tree, EPOCH_S, offset)
    with path.open("r+b") as disk:
        disk.write(area)
