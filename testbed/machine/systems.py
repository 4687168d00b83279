"""What the reference machine is booted as for which platforms: with KVM, with VirtualBox in its place, or under Xen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from runtime.errors import UsageError
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.virtualbox import VIRTUALBOX
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


class _Boot(Struct, frozen=True):
    """A machine of its own: what it is, in words, the platforms that no other one has, and a rung of the first."""

    words: str
    platforms: tuple[str, ...]
    rung: str

    @property
    def apart(self) -> str:
        """Return how its platforms are had."""
        return (
            f"bench --platforms container,{self.platforms[0]}, or ladder --rungs process,{self.rung}, in a run of "
            "their own; compare sets one of the bench beside another"
        )


_BOOTS: Mapping[System, _Boot] = MappingProxyType(
    {
        "xen": _Boot("booted under Xen", (PARAVIRTUAL,), PARAVIRTUAL),
        "virtualbox": _Boot("with VirtualBox in KVM's place", (VIRTUALBOX,), "virtualbox-2007"),
        "kvm": _Boot("with KVM", tuple(VARIANTS), "hardware-2006"),
    }
)


def choose_system(platforms: Collection[str]) -> System:
    """Return what the machine is booted as for a run of these platforms."""
    return next(iter(_find_needed(platforms)), "kvm")


def _find_needed(platforms: Collection[str]) -> tuple[System, ...]:
    """Return all that the machine must be booted as to have these platforms; none when any will do."""
    return tuple(system for system, boot in _BOOTS.items() if not set(platforms).isdisjoint(boot.platforms))


def list_absent(asked: Sequence[str]) -> Mapping[str, str]:
    """Return the platforms that the machine lacks of those that a group stands for, with the reason, by what was asked
    for by name: Xen, VirtualBox, or else KVM."""
    here = choose_system(asked)
    absent: dict[str, str] = {}
    for system, boot in _BOOTS.items():
        if system != here:
            why = f"it needs the machine {boot.words}, and this one is {_BOOTS[here].words}"
            how = f": {boot.apart}" if here == "kvm" else ""  # who has asked for another knows how
            absent |= dict.fromkeys(boot.platforms, f"{why}{how}")
    return {**absent, **_WHY_NOT}


def require_platforms(names: Sequence[str]) -> None:
    """Raise UsageError for platforms that the machine does not have, or does not have in one boot."""
    if others := [name for name in names if name in NOT_INSIDE]:
        raise UsageError(
            f"the reference machine has no {', '.join(others)}",
            "containers of our own, machines, rungs of the ladder and bare processes run there",
        )
    if len(needed := _find_needed(names)) > 1:
        boots = [_BOOTS[system] for system in needed]
        having = [f"one {it.words} has {', '.join(name for name in names if name in it.platforms)}" for it in boots]
        number = {2: "two", 3: "three"}[len(boots)]
        raise UsageError(
            f"no reference machine has all of these platforms: {'; '.join(having)}",
            f"they are {number} machines, so {number} runs: {boots[0].apart}",
        )
