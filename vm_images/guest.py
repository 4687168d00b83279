"""All that a guest boots from, except its disk: kernel, command line, initial RAM disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import PrerequisiteError
from runtime.launcher import STATIC_BINARY
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from vm_images.initramfs import MODULES_PATH, make_base_archive, make_modules_archive, make_plan_archive
from vm_images.kernel import GuestKernel, ensure_kernel
from vm_images.minimal_kernel import find_stored_minimal_kernel
from vm_images.modules import bus_modules

# earlyprintk comes before quiet on purpose: the kernel takes options in turn, so its banner, by which the host
# times the kernel's entry, is printed, and hardly anything after it (on an emulated serial line each byte is
# an exit). panic=-1 reboots at once, which ends QEMU, when PID 1 (the workload) ends. The crypto API's
# self-tests are 0.3 s of an emulated start, a second UART port that does not exist costs probes. On a busy host, where
# an emulated machine stands still now and then, the kernel could take its timer's interrupt for broken, and panic.
# Mitigations, security modules and IPv6 are left as the distribution has them.
COMMAND_LINE = "earlyprintk=serial console=ttyS0 quiet panic=-1 cryptomgr.notests 8250.nr_uarts=1 no_timer_check"

# The distribution's kernel for virtual machines, or ours, built from its source with vm_images/kernel.config.
KernelName = Literal["debian", "minimal"]


class Guest(Struct, frozen=True):
    """A kernel with the initial RAM disk that all its guests share; ``digest`` changes when either does."""

    kernel: GuestKernel
    base: bytes
    module_names: tuple[str, ...]
    digest: str

    def modules(self, bus: str) -> tuple[str, ...]:
        """Return the paths in the initial RAM disk of the modules to load, in order, with devices on ``bus``."""
        return tuple(f"/{MODULES_PATH}/{name}" for name in bus_modules(self.module_names, bus))

    def initrd(self, plan: Plan) -> bytes:
        """Return the initial RAM disk of one guest: the shared archive, then the one with its plan."""
        return self.base + make_plan_archive(encode(plan))

    def with_modules(self, modules: Sequence[Path]) -> Guest:
        """Return the guest with further modules, loaded after those that it has."""
        if not modules:
            return self
        base = self.base + make_modules_archive({path.name: path.read_bytes() for path in modules})
        names = (*self.module_names, *(path.name for path in modules))
        return replace(self, base=base, module_names=names, digest=_digest(self.kernel, base))


def _digest(kernel: GuestKernel, base: bytes) -> str:
    return hashlib.sha256(kernel.folder.name.encode() + COMMAND_LINE.encode() + base).hexdigest()


def guest_of(kernel: GuestKernel, launcher: Path = STATIC_BINARY) -> Guest:
    """Return the guest for a kernel, with ``launcher``, a static binary, as PID 1. PrerequisiteError if it is
    missing."""
    try:
        init = launcher.read_bytes()
    except OSError as error:
        hint = "run `python -m runtime.launcher.build`"
        raise PrerequisiteError(f"read the launcher {launcher}: {error.strerror}", hint) from error
    base = make_base_archive(init, {path.name: path.read_bytes() for path in kernel.modules})
    return Guest(kernel, base, kernel.module_names, _digest(kernel, base))


def xen_guest_of(kernel: GuestKernel) -> Guest:
    """Return the guest of Xen's for a kernel; errors as ``guest_of``, and PrerequisiteError without drivers for Xen."""
    return _guest_with(kernel, kernel.xen_module_names, "Xen")


def scsi_guest_of(kernel: GuestKernel) -> Guest:
    """Return the guest with its disk on a SCSI bus for a kernel; errors as ``guest_of``, and PrerequisiteError without
    drivers for that."""
    return _guest_with(kernel, kernel.scsi_module_names, "a SCSI disk")


def _guest_with(kernel: GuestKernel, names: tuple[str, ...], what: str) -> Guest:
    if not names:
        raise PrerequisiteError(f"{kernel.package} has no drivers for {what}", "take the distribution's kernel")
    return guest_of(replace(kernel, module_names=names))


def ensure_guest(guest_root: Path, kernel: KernelName | GuestKernel = "debian") -> Guest:
    """Return the guest with a kernel, or with one of those below ``guest_root``.

    The distribution's is downloaded if there is none; PrerequisiteError when the minimal one has not been built.
    """
    if isinstance(kernel, GuestKernel):
        return guest_of(kernel)
    return guest_of(find_stored_minimal_kernel(guest_root) if kernel == "minimal" else ensure_kernel(guest_root))
