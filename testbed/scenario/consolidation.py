"""Consolidation: how lightly the servers are used that are packed onto this host, and how they are packed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.load.shapes import SHAPES, Curve, make_diurnal, normalise_trace
from testbed.scenario.loads import read_trace
from testbed.scenario.sections import Section

CONSOLIDATION_KEYS = (
    *("fractions", "processors", "shape", "peak_to_mean", "trace", "zombies", "packing"),
    *("settle_s", "window_s", "idle_s", "cap"),
)
PACKINGS = ("used", "declared")
# The talk's rows: a server's mean use of its processors (scenarios/utilisation has where they come from).
FRACTIONS = (0.05, 0.08, 0.12)
# What "very lightly used" is taken for where nothing is said: a third of all (zombies of Koomey and Taylor, 2015).
ZOMBIES = 0.3
MOST_ZOMBIES = 0.9
MOST_FRACTIONS = 20
MOST_PEAK = 5.0
_LEAST_FRACTION, _MOST_FRACTION = 0.001, 0.9
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%?")


class Mix(Struct, frozen=True):
    """Servers of one kind: ``fraction`` (0 to 1) of a machine is what each uses alone, but for the ``zombies``, a
    fraction of them that has no load at all."""

    fraction: float
    zombies: float = 0.0

    @property
    def name(self) -> str:
        """Its name, by which trials tell it apart: ``8%``, ``8% + 30% zombies``."""
        zombies = f" + {self.zombies * 100:.3g}% zombies" if self.zombies else ""
        return f"{self.fraction * 100:.3g}%{zombies}"

    def is_zombie(self, server: int) -> bool:
        """Return whether a server is one of the zombies, which are spread evenly; servers are counted from 0, and the
        first is none."""
        return math.floor((server + 1) * self.zombies + 1e-9) > math.floor(server * self.zombies + 1e-9)


class Consolidation(Struct, frozen=True):
    """Servers that each use one of ``fractions`` (0 to 1) of a machine of so many ``processors`` (0: as many as this
    host has), and in which ``shape`` (testbed.load.shapes) their requests come.

    ``zombies`` (0 to 1) is the part of servers without load in the one mix that has such. ``packing`` is ``used``
    (until the service level breaks or memory ends) or ``declared`` (no further than the sum of limits fits the host).
    ``idle_s`` is for how long the first server is watched without a load; no more than ``cap`` servers are added.
    """

    fractions: tuple[float, ...] = FRACTIONS
    processors: float = 0.0
    shape: str = "constant"
    peak_to_mean: float = 2.5
    zombies: float = ZOMBIES
    packing: str = "used"
    settle_s: float = 1.0
    window_s: float = 5.0
    idle_s: float = 10.0
    cap: int = 200
    trace: tuple[tuple[float, float], ...] = ()

    @property
    def mixes(self) -> tuple[Mix, ...]:
        """The mixes that are measured: one for each fraction and, of the one in their middle, one with zombies."""
        plain = tuple(Mix(fraction) for fraction in self.fractions)
        middle = sorted(self.fractions)[len(self.fractions) // 2]
        return (*plain, Mix(middle, self.zombies)) if self.zombies else plain

    def make_curve(self) -> Curve:
        """Return the shape of a server's day; an empty one for a constant load."""
        if self.shape == "diurnal":
            return make_diurnal(self.peak_to_mean)
        return normalise_trace(self.trace) if self.shape == "trace" else ()


class Asked(Struct, frozen=True):
    """What was asked for on the command line in place of a scenario's own; empty or None where nothing was. ``cap``
    is what the reference machine sets."""

    fractions: tuple[float, ...] = ()
    shape: str = ""
    packing: str = ""
    zombies: float | None = None
    cap: int | None = None

    def apply(self, settings: Consolidation) -> Consolidation:
        """Return the settings with what was asked for. Raises UsageError for what is none of the choices."""
        asked = replace(
            settings,
            fractions=self.fractions or settings.fractions,
            shape=self.shape or settings.shape,
            packing=self.packing or settings.packing,
            zombies=settings.zombies if self.zombies is None else self.zombies,
            cap=settings.cap if self.cap is None else self.cap,
        )
        if asked.shape not in SHAPES:
            raise UsageError(f"--shape {asked.shape}: there is no such load", f"one of {', '.join(SHAPES)}")
        if asked.packing not in PACKINGS:
            raise UsageError(f"--packing {asked.packing}: there is no such packing", f"one of {', '.join(PACKINGS)}")
        if asked.shape == "trace" and not asked.trace:
            hint = "x-testbed.consolidation.trace: a CSV file with the columns t_s,rate_per_s"
            raise UsageError("--shape trace: the scenario has no trace of rates to replay", hint)
        return asked


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return the fractions that ``--fractions`` names: ``5,8,12`` percent. Raises UsageError for what is none."""
    words = [word.strip() for word in text.split(",")]
    fractions = tuple(_parse_percent("--fractions", word, _LEAST_FRACTION, _MOST_FRACTION) for word in words)
    if not 1 <= len(fractions) <= MOST_FRACTIONS or len(set(fractions)) < len(fractions):
        raise UsageError(
            f"--fractions {text}: a list of at most {MOST_FRACTIONS} different percentages", "as in 5,8,12"
        )
    return fractions


def parse_zombies(text: str) -> float:
    """Return the part of servers that ``--zombies`` names: ``30%``, 0 for none. Raises UsageError for what is none."""
    return _parse_percent("--zombies", text, 0.0, MOST_ZOMBIES)


def _parse_percent(option: str, text: str, low: float, high: float) -> float:
    match = _PERCENT.fullmatch(text.strip())
    fraction = float(match[1]) / 100 if match else math.nan
    if not low <= fraction <= high:
        wanted = f"percent from {low * 100:g} to {high * 100:g}"
        raise UsageError(f"{option} {text}: {text or 'nothing'} is no {wanted}", f"for example {option} 8")
    return fraction


def read_consolidation(section: Section) -> Consolidation:
    """Return the section ``consolidation``; what is wrong is noted."""
    usual = Consolidation()
    processors, peak, zombies = (section.get(key) for key in ("processors", "peak_to_mean", "zombies"))
    trace = section.get("trace")
    steps = () if trace is None else read_trace(trace)
    if trace is not None and steps and not any(rate for _, rate in steps):
        trace.report("makes no request", "a trace with a rate above 0")
        steps = ()
    shape = _read_choice(section, "shape", "trace" if steps else usual.shape, SHAPES)
    if shape == "trace" and trace is None:
        choice = section.get("shape")
        assert choice is not None, "it is no default"
        choice.report("is a trace, and none is named", "trace: a CSV file with the columns t_s,rate_per_s")
    return Consolidation(
        fractions=_read_fractions(section),
        processors=0.0 if processors is None else processors.number("processors", above=0, high=4096),
        shape=shape,
        peak_to_mean=usual.peak_to_mean if peak is None else peak.number("peak over mean", above=1, high=MOST_PEAK),
        zombies=usual.zombies if zombies is None else zombies.number("a part of servers", low=0, high=MOST_ZOMBIES),
        packing=_read_choice(section, "packing", usual.packing, PACKINGS),
        settle_s=section.seconds("settle_s", usual.settle_s),
        window_s=section.seconds("window_s", usual.window_s, above=0),
        idle_s=section.seconds("idle_s", usual.idle_s, above=0),
        cap=section.integer("cap", usual.cap, 1, 10_000, "servers"),
        trace=steps,
    )


def _read_fractions(section: Section) -> tuple[float, ...]:
    value = section.get("fractions")
    if value is None:
        return FRACTIONS
    found = tuple(
        one.number("a fraction of a machine", low=_LEAST_FRACTION, high=_MOST_FRACTION) for one in value.items()
    )
    if not 1 <= len(found) <= MOST_FRACTIONS or len(set(found)) < len(found):
        value.report(f"has {len(found) or 'no'} fractions", f"different ones, at most {MOST_FRACTIONS}")
    return tuple(one for one in found if math.isfinite(one)) or FRACTIONS


def _read_choice(section: Section, key: str, default: str, choices: Sequence[str]) -> str:
    value = section.get(key)
    text = default if value is None else value.text(f"one of {', '.join(choices)}")
    if value is not None and text not in choices:
        value.report(f"is {text[:40]!r}", f"one of {', '.join(choices)}")
        return default
    return text
