"""Peers without isolation: a process in the image's files at an address, and the same by chroot(8)."""

from __future__ import annotations

from runtime.plan.steps import Chroot, Plan, Step
from testbed.platforms.peers.entering import INSIDE, VARIABLE, EnteringPeer
from testbed.platforms.peers.peer import NO_WALLS, Peer, Place
from testbed.platforms.peers.plans import bare_entry_plan, bare_steps, bind_entry, share_host_steps
from testbed.platforms.peers.program import Found, Program


class ProcessPeer(Peer):
    """A process that has of all isolation only what it takes to have an address of its own (a network namespace) and
    the image's files (a mount namespace, chroot(2)); nothing but its limits confines it."""

    name = "process"
    program = Program("")
    stays = False
    is_seen = False
    said = NO_WALLS

    @property
    def title(self) -> str:
        return "process (bare)"

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        return share_host_steps()

    def last_steps(self, place: Place, found: Found) -> tuple[Step, ...]:
        return (Chroot(str(place.root)), *bare_steps(place))


class ChrootPeer(EnteringPeer):
    """The same, by the program chroot(8)."""

    name = "chroot"
    program = Program("chroot", "coreutils")
    stays = False
    said = NO_WALLS

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        return (*share_host_steps(), bind_entry(place))

    def plan(self, place: Place) -> Plan:
        return bare_entry_plan(place)

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        return (found.path, str(place.root), INSIDE)

    def environment(self, place: Place) -> tuple[str, ...]:
        return (*super().environment(place), VARIABLE)
