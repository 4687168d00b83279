"""Which KVM this host has: by what its kernel shows, and no further.

KVM itself is one interface above several ways to run a guest. On hardware these are Intel's VMX and AMD's SVM, each a
module of its own, and the processor shows the extension; where a hypervisor is below, both are nested. Without either
extension /dev/kvm can only be a KVM in software: PVM (the module kvm_pvm) runs guests in user mode with shadow page
tables. A kernel that was not built for that (CONFIG_PVM_GUEST) has its privileged instructions emulated.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from testbed.host.facts import PROC, SYS, parse_key_values, read

DEVICE = Path("/dev/kvm")
# include/uapi/linux/kvm.h: _IO(KVMIO, 0x00).
_GET_API_VERSION = 0xAE00
# The stable API (Documentation/virt/kvm/api.rst): other versions are to be refused.
API_VERSION = 12

Kind = Literal["intel", "amd", "pvm", "software", "unknown", "none"]
_MODULES: Mapping[str, Kind] = {"kvm_intel": "intel", "kvm_amd": "amd", "kvm_pvm": "pvm"}
_EXTENSIONS: Mapping[str, Kind] = {"vmx": "intel", "svm": "amd"}
# What a page walk in hardware needs; without it each change of a guest's page tables is an exit.
_TWO_DIMENSIONAL = {"intel": "ept", "amd": "npt"}
_NAMES: Mapping[Kind, str] = {
    "intel": "Intel's VMX",
    "amd": "AMD's SVM",
    "pvm": "PVM, a KVM in software",
    "software": "a KVM in software of an unknown kind",
    "unknown": "a KVM of an unknown kind",
    "none": "none",
}
PVM_HINT = (
    "under PVM a stock kernel crawls, its privileged instructions emulated one by one; what is missing is a guest "
    "kernel with CONFIG_PVM_GUEST=y, of PVM's own sources (Linux' have it not): build one, and give it by "
    "--guest-kernel FILE"
)


class Seen(Struct, frozen=True):
    """What the host shows: the processor's ``flags``, ``modules`` of KVM with their parameters, and the ``api`` version
    by which the device answers (None: not at all, for ``problem``; ``forbidden``: it is there and not to be opened)."""

    flags: frozenset[str] = frozenset()
    modules: Mapping[str, Mapping[str, str]] = {}
    api: int | None = None
    problem: str = ""
    forbidden: bool = False


class Kvm(Struct, frozen=True):
    """The ``kind`` of KVM, in ``words`` that say by what it is known; ``nested``: a hypervisor is below this host.

    ``fix`` is what to do about it, if anything can be done.
    """

    kind: Kind
    nested: bool
    words: str
    fix: str = ""


def look() -> Seen:
    """Look at the processor, the modules and the device now; nothing is loaded, and no machine made."""
    cpuinfo = parse_key_values(read(PROC / "cpuinfo") or "", ":")
    flags = frozenset(cpuinfo.get("flags", "").split())
    modules = {name: _read_parameters(name) for name in _MODULES if (SYS / "module" / name).is_dir()}
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        return Seen(flags, modules, problem=f"{DEVICE}: {error.strerror}", forbidden=forbidden)
    try:
        api = fcntl.ioctl(descriptor, _GET_API_VERSION, 0)
    except OSError as error:
        what = "it is no KVM" if error.errno == errno.ENOTTY else error.strerror
        return Seen(flags, modules, problem=f"{DEVICE} opens, but {what}")
    finally:
        os.close(descriptor)
    return Seen(flags, modules, api)


def _read_parameters(module: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for path in sorted((SYS / "module" / module / "parameters").glob("*")):
        if (value := read(path)) is not None:
            parameters[path.name] = value
    return parameters


def judge(seen: Seen) -> Kvm:
    """Return the kind of KVM from what the host shows."""
    nested = "hypervisor" in seen.flags
    offered = next((kind for flag, kind in _EXTENSIONS.items() if flag in seen.flags), None)
    loaded = [kind for name, kind in _MODULES.items() if name in seen.modules]
    if seen.problem or seen.api != API_VERSION:
        problem = seen.problem or f"{DEVICE} has API version {seen.api}, not {API_VERSION}"
        fix = "run as root, or join the group that may open it" if seen.forbidden else _advise_device(offered, nested)
        return Kvm("none", nested, problem, fix)
    # The module of a processor's extension is of no use without it, and a built-in one is there all the same.
    usable = [kind for kind in loaded if kind == "pvm" or kind == offered]
    kind: Kind = "unknown"
    if len(usable) == 1:
        kind = usable[0]
    elif not usable:
        kind = "software" if offered is None else "unknown"
    by = [f"module {', '.join(seen.modules)}" if seen.modules else "no module of KVM's is shown"]
    by.append(f"the processor shows {_extension(offered)}")
    words = (
        f"{DEVICE} opens: {_NAMES[kind]}{', nested' if nested and kind in ('intel', 'amd') else ''} ({'; '.join(by)})"
    )
    if nested and kind not in ("intel", "amd"):
        words += "; this host is itself a virtual machine"
    if (switch := _TWO_DIMENSIONAL.get(kind)) and seen.modules.get(f"kvm_{kind}", {}).get(switch) in ("N", "0"):
        words += f"; without {switch.upper()}, which makes it slow"
    return Kvm(kind, nested, words, PVM_HINT if kind == "pvm" else "")


def _extension(offered: Kind | None) -> str:
    return next((flag for flag, kind in _EXTENSIONS.items() if kind == offered), "neither vmx nor svm")


def _advise_device(offered: Kind | None, nested: bool) -> str:
    """Return what would make a device appear that is not there, or open."""
    if offered is not None:
        return f"guests will be emulated (TCG); load kvm_{offered}"
    if nested:
        return "guests will be emulated (TCG); the hypervisor below would have to offer nested virtualisation"
    return "guests will be emulated (TCG); switch virtualisation on in the firmware, if the processor has it"


def detect() -> Kvm:
    """Return the kind of KVM that this host has."""
    return judge(look())
