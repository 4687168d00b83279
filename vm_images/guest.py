"""All that a guest boots from, except its disk: kernel, command line, initial RAM disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.launcher import STATIC_BINARY
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from vm_images.initramfs import MODULES_PATH, base_archive, modules_archive, plan_archive
from vm_images.kernel import GuestKernel, ensure_kernel

# earlyprintk comes before quiet on purpose: the kernel takes options in turn, so its banner, by which the host
# times the kernel's entry, is printed, and hardly anything after it (on an emulated serial line each byte is
# an exit). panic=-1 reboots at once, which ends QEMU, when PID 1 (the workload) ends. The crypto API's
# self-tests are 0.3 s of an emulated start, a second UART port that does not exist costs probes.
# Mitigations, security modules and IPv6 are left as the distribution has them.
COMMAND_LINE = "earlyprintk=serial console=ttyS0 quiet panic=-1 cryptomgr.notests 8250.nr_uarts=1"


@dataclass(frozen=True)
class Guest:
    """A kernel with the initial RAM disk that all its guests share; ``digest`` changes when either does."""

    kernel: GuestKernel
    base: bytes
    module_paths: tuple[str, ...]
    digest: str

    def initrd(self, plan: Plan) -> bytes:
        """The initial RAM disk of one guest: the shared archive, then the one with its plan."""
        return self.base + plan_archive(encode(plan))

    def with_modules(self, modules: Sequence[Path]) -> Guest:
        """The guest with further modules, loaded after those that it has."""
        if not modules:
            return self
        base = self.base + modules_archive({path.name: path.read_bytes() for path in modules})
        paths = (*self.module_paths, *_paths(path.name for path in modules))
        return replace(self, base=base, module_paths=paths, digest=_digest(self.kernel, base))


def _paths(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"/{MODULES_PATH}/{name}" for name in names)


def _digest(kernel: GuestKernel, base: bytes) -> str:
    return hashlib.sha256(kernel.folder.name.encode() + COMMAND_LINE.encode() + base).hexdigest()


def guest_of(kernel: GuestKernel, launcher: Path = STATIC_BINARY) -> Guest:
    """The guest for a kernel, with ``launcher``, a static binary, as PID 1. PrerequisiteError if it is missing."""
    try:
        init = launcher.read_bytes()
    except OSError as error:
        hint = "run `python -m runtime.launcher.build`"
        raise PrerequisiteError(f"read the launcher {launcher}: {error.strerror}", hint) from error
    base = base_archive(init, {path.name: path.read_bytes() for path in kernel.modules})
    return Guest(kernel, base, _paths(kernel.module_names), _digest(kernel, base))


def ensure_guest(guest_root: Path) -> Guest:
    """The guest, its kernel downloaded if there is none below ``guest_root``."""
    return guest_of(ensure_kernel(guest_root))
