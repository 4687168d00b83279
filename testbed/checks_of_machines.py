"""Checks what virtual machines need: KVM and its kind, an accelerator that boots a guest, and each kind's own needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from testbed.checks import Check
from testbed.host import kvm
from testbed.platforms.hypervisors import HYPERVISORS, refuse_hypervisor
from testbed.platforms.needs import find_needs, look_at_host
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.qemu import accelerator
from testbed.qemu.emulator import find_qemu
from testbed.qemu.variants import VARIANTS
from testbed.virtualbox.installation import require_virtualbox
from testbed.xen.domain_0 import require_domain_0
from vm_images.guest import ensure_guest
from vm_images.kernel import GuestKernel
from vm_images.kernel_options import find_lacking, needed_options
from vm_images.own_kernel import read_options, read_own_kernel


def check_kvm() -> Check:
    """Check that the device is there and opens, and name the kind of KVM; whether guests run on it is the accelerator's
    question."""
    found = kvm.detect()
    return Check("kvm device", found.kind not in ("none", "pvm"), found.words, found.fix, required=False)


def check_accelerators(guest_kernel: str = "") -> list[Check]:
    """Check what guests would run on, by booting one; the kernel for it is fetched first, unless it is there.

    ``guest_kernel`` is the file of another to boot. Who is not root is told the last attempts. Raises UsageError for a
    file that is no kernel.
    """
    guest_root = store_root() / "guest"
    try:
        if os.geteuid() != 0:
            return judge_attempts(accelerator.read_last_attempts(guest_root), explain_closed_kvm())
        own = read_own_kernel(guest_root, Path(guest_kernel)) if guest_kernel else None
        guest = ensure_guest(guest_root, own or "debian")
        tried = accelerator.try_accelerators(guest_root, find_qemu(), guest)
        checks = judge_attempts(tried, explain_closed_kvm())
        return checks if own is None else [_describe(own), *checks]
    except PrerequisiteError as error:
        return [Check("accelerator", False, error.message, error.hint, required=False)]


def _describe(kernel: GuestKernel) -> Check:
    """Return what is known of a kernel of somebody's own, and which machines it is known to lack something for."""
    detail = f"{kernel.package}: {kernel.release}, entered as {'PVH' if kernel.pvh else 'bzImage'}, {kernel.version}"
    config = read_options(kernel)
    if not config:
        return Check("guest kernel", True, f"{detail}; it does not hold its configuration (CONFIG_IKCONFIG)", "", False)
    pvm = "" if find_lacking(("CONFIG_PVM_GUEST",), config) else "; built for PVM"
    lacking = {
        name: lacks
        for name, variant in VARIANTS.items()
        if variant.boots_kernel and (lacks := find_lacking(needed_options(variant.kernel_needs), config))
    }
    if not lacking:
        return Check("guest kernel", True, f"{detail}; it has all that machines need{pvm}", "", False)
    missing = ", ".join(dict.fromkeys(option for lacks in lacking.values() for option in lacks))
    return Check("guest kernel", False, f"{detail}{pvm}; not for {', '.join(lacking)}", f"build in {missing}", False)


def explain_closed_kvm() -> str:
    """Return why QEMU's account cannot open KVM, as far as there is such an account."""
    try:
        return accelerator.explain_closed_kvm()
    except PrerequisiteError:
        return ""


def judge_attempts(tried: Sequence[accelerator.Attempt], closed: str) -> list[Check]:
    """Return a check for each accelerator that was tried, with when that was; the one that guests get is marked.

    Raises PrerequisiteError when no guest boots.
    """
    if not tried:
        detail = "not tried yet: the first benchmark with VMs, or doctor as root after it, boots a guest to find out"
        return [Check("accelerator", True, detail, required=False)]
    chosen = accelerator.decide(tried, closed)
    fix = "without hardware virtualisation VM figures are of an emulator; use a host with a working KVM"
    results = [
        Check(
            f"accelerator {one.accelerator}",
            one.boot_s is not None and (one.accelerator != "kvm" or chosen.hardware),
            f"{chosen.reason if one.accelerator == 'kvm' else one.reason} (tried {one.at})"
            + mark_chosen(one.accelerator, chosen.accelerator),
            fix if one.accelerator == "kvm" else "",
            required=False,
        )
        for one in tried
    ]
    if "kvm" not in [one.accelerator for one in tried]:
        detail = "not known to work; each run as root tries it anew, and so does doctor"
        results.append(Check("accelerator kvm", False, detail, "run doctor as root", required=False))
    return results


def mark_chosen(name: str, chosen: str) -> str:
    """Return the words that mark the accelerator that guests get."""
    return "; guests get this one" if name == chosen else ""


def check_hypervisors() -> list[Check]:
    """Say of each hypervisor that is no platform what is here of it, and why it is none."""
    checks = []
    for name in HYPERVISORS:
        try:
            refuse_hypervisor(name)
        except PrerequisiteError as error:
            checks.append(Check(name, False, error.message, error.hint, required=False))
    return checks


def check_xen() -> Check:
    """Check whether Xen has booted this system, so that its guests can run here."""
    try:
        require_domain_0()
    except PrerequisiteError as error:
        return Check(PARAVIRTUAL, False, error.message, error.hint, required=False)
    return Check(PARAVIRTUAL, True, "this system is Xen's domain 0", required=False)


def check_virtualbox() -> Check:
    """Check whether VirtualBox is here, with all that its machines need."""
    try:
        found = require_virtualbox()
    except PrerequisiteError as error:
        return Check(VIRTUALBOX, False, error.message, error.hint, required=False)
    return Check(VIRTUALBOX, True, f"VirtualBox {found.version}", required=False)


def check_variants() -> list[Check]:
    """Check what each kind of virtual machine needs, and whether that is there; what a run makes itself is no lack."""
    host = look_at_host(store_root())
    checks = []
    for name, variant in VARIANTS.items():
        needs = find_needs(variant, host)
        lacks = [need for need in needs if not need.there]
        detail = "; ".join(need.words for need in lacks) or f"there: {', '.join(need.words for need in needs)}"
        fix = "; ".join(dict.fromkeys(need.fix for need in lacks if need.fix))
        checks.append(Check(name, not lacks, detail, fix, required=False))
    return checks
