"""What the reference machine is booted as for which platforms: a host with KVM, or domain 0 of Xen without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from runtime.errors import UsageError
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.qemu.variants import VARIANTS
from vm_images.reference import System

# What needs a program or a daemon that the machine's image has not, and a translator that would be translated itself.
_PEERS = ("libvirt-lxc", "bwrap", "nspawn", "crun", "runc", "youki", "podman", "lxc", "runsc", "kata", "docker")
_WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_PEERS, "not in the machine of this run"),
        "emulated-1988": "it translates instruction by instruction, and would itself be translated by the emulator",
    }
)
NOT_INSIDE = frozenset(_WHY_NOT)
_APART = (
    f"bench --platforms container,{PARAVIRTUAL}, or ladder --rungs process,{PARAVIRTUAL}, in a run of their own; "
    "compare sets one of the bench beside another"
)


def choose_system(platforms: Iterable[str]) -> System:
    """Return what the machine is booted as for a run of these platforms."""
    return "xen" if PARAVIRTUAL in platforms else "kvm"


def list_absent(asked: Sequence[str]) -> Mapping[str, str]:
    """Return the platforms that the machine lacks of those that a group stands for, with the reason, by what was asked
    for by name: Xen, or else KVM."""
    absent = dict(_WHY_NOT)
    if choose_system(asked) == "xen":
        return {**absent, **dict.fromkeys(VARIANTS, "there is no KVM in a machine that Xen has booted")}
    return {**absent, PARAVIRTUAL: f"it needs the machine booted under Xen, which has no KVM: {_APART}"}


def require_platforms(names: Sequence[str]) -> None:
    """Raise UsageError for platforms that the machine does not have, or does not have in one boot."""
    if others := [name for name in names if name in NOT_INSIDE]:
        raise UsageError(
            f"the reference machine has no {', '.join(others)}",
            "containers of our own, machines, rungs of the ladder and bare processes run there",
        )
    machines = [name for name in names if name in VARIANTS]
    if machines and choose_system(names) == "xen":
        raise UsageError(
            f"{PARAVIRTUAL} needs the reference machine booted under Xen, and {', '.join(machines)} one with KVM",
            f"they are two machines, so two runs: {_APART}",
        )
