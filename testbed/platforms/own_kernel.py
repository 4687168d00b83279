"""Tries a guest kernel of somebody's own before anything is measured, by a start as far as the workload.

Such a kernel comes without modules, so all that a machine has must be built in. What it lacks is told from the
configuration that it may hold, or else shows here, by its console.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import PrerequisiteError, WorkloadError
from runtime.images.model import Image
from runtime.output import last_lines
from testbed.lab import Lab
from testbed.platforms.protocol import Instance, Platform
from testbed.qemu.accelerator import NoGuestBoots
from testbed.qemu.variants import Variant
from testbed.scenario.model import Scenario
from testbed.services.specs import make_specs
from vm_images.kernel import GuestKernel
from vm_images.kernel_options import find_lacking, needed_options
from vm_images.own_kernel import read_options


def require_options(kernel: GuestKernel, variants: Mapping[str, Variant]) -> None:
    """Raise PrerequisiteError for options that these machines need and the kernel, by its own word, lacks."""
    config = read_options(kernel)
    if not config:
        return
    needed = dict.fromkeys(option for one in variants.values() for option in needed_options(one.kernel_needs))
    lacking = find_lacking(needed, config)
    if lacking:
        raise PrerequisiteError(
            f"the kernel {kernel.package} ({kernel.release}) cannot be a guest's of {', '.join(variants)}; "
            f"not built in: {', '.join(f'{option} ({state})' for option, state in lacking.items())}",
            "build it with these =y; vm_images/kernel.config is a configuration that has all",
        )


@contextmanager
def explained(kernel: GuestKernel, variant: Variant, *, starts: bool = True) -> Iterator[None]:
    """Within, a guest of the variant that does not boot, or, where any ``starts``, not get to its workload, is the
    kernel's failure.

    Raises PrerequisiteError with what the guest said last, and what such a machine needs of a kernel.
    """
    try:
        yield
    except NoGuestBoots as error:
        said = "\n".join(
            f"under {one.accelerator}, its console's last lines:\n{one.console or '(it wrote nothing)'}"
            for one in error.attempts
            if one.boot_s is None and one.console
        )
        raise _failure(kernel, variant, error.message, said) from error
    except WorkloadError as error:
        if not starts:
            raise
        raise _failure(kernel, variant, error.message, error.hint) from error


# What a guest's plan says of a step that failed, and the option that such a step needs.
_SUSPECTS = (
    (r"netlink .*\bENODEV\b", "CONFIG_VIRTIO_NET"),
    (r"wait path /dev/vd.*\bETIMEDOUT\b", "CONFIG_VIRTIO_BLK"),
    (r"serve commands .*\bETIMEDOUT\b", "CONFIG_VIRTIO_CONSOLE"),
    (r"mount /dev: ENODEV", "CONFIG_DEVTMPFS"),
    (r"mount /proc: ENODEV", "CONFIG_PROC_FS"),
    (r"mount /cgroup: ENODEV", "CONFIG_CGROUPS"),
    (r"mount /volatile: ENODEV", "CONFIG_TMPFS"),
    (r"seccomp .*\bEINVAL\b", "CONFIG_SECCOMP_FILTER"),
)


def find_suspect(failure: str, variant: Variant) -> str:
    """Return the option whose lack explains best why a step of the guest's plan failed; empty when none does."""
    file_system = f"CONFIG_{variant.disk.file_system.upper()}_FS"
    root = file_system if variant.kernel_needs.writable_disk else "CONFIG_OVERLAY_FS"
    for pattern, option in (*_SUSPECTS, (r"mount /lower: ENODEV", file_system), (r"mount /merged: ENODEV", root)):
        if re.search(pattern, failure):
            return option
    return ""


def _failure(kernel: GuestKernel, variant: Variant, what: str, said: str) -> PrerequisiteError:
    if suspect := find_suspect(what, variant):
        what = f"{what}: most likely it lacks {suspect}"
    needed = ", ".join(option.removeprefix("CONFIG_") for option in needed_options(variant.kernel_needs))
    return PrerequisiteError(
        f"the kernel {kernel.package} ({kernel.release}) does not serve {variant.name}: {what}",
        f"{said}\nit has no modules here, so these must be built in: {needed}; vm_images/kernel.config has all",
    )


def try_kernel(
    platform: Platform,
    kernel: GuestKernel,
    variant: Variant,
    scenario: Scenario,
    images: Mapping[str, Image],
    log: Path,
) -> None:
    """Start one instance of the prepared platform, in a lab of its own, as far as its workload's execve, and stop it.

    ``log`` is the file for its console. Raises PrerequisiteError as ``explained``.
    """
    with explained(kernel, variant), Lab() as lab:
        links = [lab.link(0, 0 if platform.one_address else index) for index in range(len(scenario.services))]
        specs = dict(zip((one.name for one in scenario.services), make_specs(scenario, images, links), strict=True))
        first = next(iter(specs))
        instance = Instance(f"try-{first}", 0, specs if platform.shared else {first: specs[first]}, log)
        try:
            platform.start(instance)
            try:
                platform.started(instance, scenario.chosen(False).ready.timeout_vm_s * platform.patience)
            except WorkloadError as error:
                console = "\n".join(last_lines(log)) or "(it wrote nothing)"
                raise WorkloadError(error.message, f"its console's last lines:\n{console}") from error
        finally:
            platform.stop(instance)
