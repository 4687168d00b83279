"""The options that a kernel of somebody's own needs to be a guest's: what its machines have must be built in.

``kernel.config`` is a whole configuration with them. A kernel built with CONFIG_IKCONFIG holds its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from vm_images.compression import decompress

# Linux, kernel/configs.c.
_BEGIN, _END = b"IKCFG_ST", b"IKCFG_ED"
_MOST_BYTES = 4 << 20
_OPTION = re.compile(r"^(CONFIG_[A-Za-z0-9_]+)=(.*)$", re.MULTILINE)

_ALL = (
    *("64BIT", "PRINTK", "TTY", "SERIAL_8250_CONSOLE", "BLK_DEV_INITRD", "BINFMT_ELF", "MULTIUSER"),
    *("DEVTMPFS", "PROC_FS", "SYSFS", "TMPFS", "TMPFS_XATTR", "SHMEM", "FUTEX", "EPOLL", "UNIX", "INET"),
    *("BLOCK", "VIRTIO_BLK", "VIRTIO_NET", "CGROUPS", "CGROUP_PIDS", "SECCOMP_FILTER"),
)
_CONTAINERS = (
    *("BRIDGE", "VETH", "UTS_NS", "IPC_NS", "PID_NS", "NET_NS", "MEMCG", "CFS_BANDWIDTH", "CPUSETS", "BLK_CGROUP"),
    *("BPF_SYSCALL", "CGROUP_BPF", "CGROUP_FREEZER"),
)


class Machine(Struct, frozen=True):
    """What a kind of machine asks of its guest's kernel, besides what all do."""

    bus: str = "pci"
    file_system: str = "erofs"
    writable_disk: bool = False
    balloon: bool = False
    reporting: bool = False
    containers: bool = False
    port: bool = False


def needed_options(machine: Machine) -> tuple[str, ...]:
    """Return the options, as a kernel's configuration names them."""
    names = [*_ALL]
    # microvm's serial port has no legacy interrupt, only the one that ACPI's tables give it.
    names += (
        ["VIRTIO_MMIO", "ACPI", "PNP", "SERIAL_8250_PNP"] if machine.bus == "mmio" else ["PCI", "VIRTIO_PCI", "ACPI"]
    )
    names += {"erofs": ["EROFS_FS", "EROFS_FS_XATTR"], "ext4": ["EXT4_FS"]}[machine.file_system]
    names += [] if machine.writable_disk else ["OVERLAY_FS"]
    names += ["VIRTIO_BALLOON"] if machine.balloon or machine.reporting else []
    names += ["PAGE_REPORTING"] if machine.reporting else []
    names += ["VIRTIO_CONSOLE"] if machine.port else []
    names += _CONTAINERS if machine.containers else ()
    return tuple(f"CONFIG_{name}" for name in names)


def find_lacking(options: Iterable[str], config: str) -> dict[str, str]:
    """Return those that are not built into a kernel of this configuration: ``off``, or ``only as a module``."""
    values = dict(_OPTION.findall(config))
    words = {"m": "only as a module", "y": ""}
    states = {option: words.get(values.get(option, "n"), "off") for option in options}
    return {option: state for option, state in states.items() if state}


def extract_config(elf: bytes) -> str:
    """Return the configuration that an uncompressed kernel holds (CONFIG_IKCONFIG); empty when it holds none.

    Raises PrerequisiteError for one that is damaged.
    """
    begin = elf.find(_BEGIN)
    end = elf.find(_END, begin)
    if begin < 0 or end < 0 or end - begin > _MOST_BYTES:
        return ""
    packed = elf[begin + len(_BEGIN) : end]
    return decompress(packed, "the configuration in the guest kernel", _MOST_BYTES).decode(errors="replace")
