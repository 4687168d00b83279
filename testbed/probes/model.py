"""Probes as data: what is tried from inside a rung, which wall keeps it, and by what the host judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

# Told from what the maker meant and what the host saw:
#   blocked     meant to be prevented (or not spoken of), and the canary is untouched
#   leaked      meant to be prevented, and the canary shows that it was done
#   permitted   meant to be allowed, or not spoken of, and it was done
#   broken      meant to be allowed, and it failed
#   untestable  this host or this rung cannot be asked; the reason is in `words`
Verdict = Literal["blocked", "leaked", "permitted", "broken", "untestable"]
VERDICTS: tuple[Verdict, ...] = ("blocked", "leaked", "permitted", "broken", "untestable")
Intention = Literal["forbidden", "permitted", "unsaid"]


class Probe(Struct, frozen=True):
    """One attempt. ``wall`` is what keeps it on a container of ours (testbed.rungs.model.WALLS), "" where nothing is to
    keep it; ``also`` are walls that keep it, too, so that it is done only where all of them are missing. ``tries`` and
    ``why`` are sentences. What touches nothing but what is the rung's ``own`` is no attempt on a wall: that it fails is
    breakage.

    ``words`` is what the program inside is called with; ``{...}`` in them is filled with what the ``canary`` offers: an
    object of the host that the probe cannot forge having reached (a file's secret, a process, a port, a setting).
    ``needs`` is a file that the host has where its kernel can do what is tried.
    """

    name: str
    kind: str
    tries: str
    why: str
    wall: str
    canary: str
    words: tuple[str, ...]
    needs: str = ""
    also: tuple[str, ...] = ()
    own: bool = False

    @property
    def walls(self) -> frozenset[str]:
        """All walls that keep it."""
        return frozenset((self.wall, *self.also)) - {""}


class Outcome(Struct, frozen=True):
    """What came of a probe on a rung, or another platform: ``errno`` is what the kernel answered inside (a name as
    EPERM, empty where nothing failed), ``words`` what the host saw, or why it could not be tested."""

    rung: str
    probe: str
    verdict: Verdict
    intention: Intention
    errno: str = ""
    words: str = ""


class Counted(Struct, frozen=True):
    """How many probes had each verdict on a rung."""

    rung: str
    verdicts: Mapping[str, int]
