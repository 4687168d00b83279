"""Peers inside which our launcher is executed, to do what they have no words for, and the bare ones beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from types import MappingProxyType

from runtime.launcher import STATIC_BINARY
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from testbed.platforms.peers.peer import Place, ProgramPeer
from testbed.platforms.peers.plans import ENTRY, ENTRY_PLAN, LAUNCHER, entry_plan
from testbed.qemu.domain import PLAN_VARIABLE

INSIDE = f"{ENTRY}/{LAUNCHER}"
VARIABLE = f"{PLAN_VARIABLE}={ENTRY}/{ENTRY_PLAN}"


class EnteringPeer(ProgramPeer):
    """A peer whose command is our launcher, with the plan that leads to the workload."""

    enters = True
    said: Mapping[str, str] = MappingProxyType(
        {
            "walls": "as a container's of ours; user, rlimits, capabilities, seccomp and masked paths by our launcher,"
            " which the peer executes inside and which becomes the command"
        }
    )

    def lay_out(self, place: Place) -> None:
        place.entry.mkdir()
        shutil.copy2(STATIC_BINARY, place.entry / LAUNCHER)
        (place.entry / ENTRY_PLAN).write_bytes(encode(self.plan(place)))

    def plan(self, place: Place) -> Plan:
        """Return the plan inside."""
        return entry_plan(place, asks=not self.limits)
