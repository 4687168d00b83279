"""A scenario's work: a program that a service runs once when it is asked to, and the figures that it answers with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

_GIBI, _MEBI, _KIBI = 2.0**30, 2.0**20, 2.0**10
# What programs write a figure in: the factor to the base unit of a run folder, and that base unit.
UNITS: Mapping[str, tuple[float, str]] = MappingProxyType(
    {
        **{"s": (1.0, "s"), "ms": (1e-3, "s"), "us": (1e-6, "s"), "ns": (1e-9, "s")},
        **{"bytes": (1.0, "bytes"), "KiB": (_KIBI, "bytes"), "MiB": (_MEBI, "bytes"), "GiB": (_GIBI, "bytes")},
        **{"bytes/s": (1.0, "bytes/s"), "KiB/s": (_KIBI, "bytes/s"), "MiB/s": (_MEBI, "bytes/s")},
        **{"MB/s": (1e6, "bytes/s"), "GB/s": (1e9, "bytes/s"), "Mbit/s": (1e6 / 8, "bytes/s")},
        **{"flop/s": (1.0, "flop/s"), "Gflop/s": (1e9, "flop/s"), "Tflop/s": (1e12, "flop/s")},
        **{"1/s": (1.0, "1/s"), "GUP/s": (1e9, "1/s")},
    }
)
# A trial has these of its own (testbed.measures.work).
RESERVED = ("work_", "exits", "page_faults", "major_faults", "context_switches", "host_", "counting", "throttled")
MOST_FIGURES = 50
_FIGURE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Work(Struct, frozen=True):
    """The work of a service: a GET of ``path`` has it done, and is answered when it is.

    ``figures`` are the names of what the answer holds as ``name=number``, each with the unit that the number is in (a
    key of UNITS). ``timeout_s`` is the limit for containers, ``timeout_vm_s`` for virtual machines.
    """

    service: str
    port: int
    path: str
    timeout_s: float
    timeout_vm_s: float
    figures: tuple[tuple[str, str], ...]


def convert(number: float, unit: str) -> tuple[float, str]:
    """Return a number that is in one of UNITS in the base unit, and that unit."""
    factor, base = UNITS[unit]
    return number * factor, base


def read_figures(value: Value) -> tuple[tuple[str, str], ...]:
    """Return the figures that are written as a mapping of names to units; what is wrong is noted."""
    entries = value.entries()
    if not 1 <= len(entries) <= MOST_FIGURES:
        value.report(f"has {len(entries) or 'no'} figures", f"names with their units, at most {MOST_FIGURES}")
        return ()
    return tuple((_name(name, entry), _unit(entry)) for name, entry in entries.items())


def _name(name: str, entry: Value) -> str:
    if not _FIGURE.fullmatch(name):
        entry.report(f"{quote(name)} is no name of a figure", "at most 40 of a to z, 0 to 9 and '_', a letter first")
    elif name.startswith(RESERVED):
        entry.report(f"{quote(name)} is a figure that the testbed adds itself", "another name")
    return name


def _unit(entry: Value) -> str:
    unit = entry.text("a unit such as s or MiB/s")
    if unit and unit not in UNITS:
        entry.report(f"is {quote(unit)}", f"the unit that the program writes it in: {', '.join(UNITS)}")
    return unit
