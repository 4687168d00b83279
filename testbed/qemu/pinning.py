"""Pins a guest's virtual processors to the host's, each to one, and finds the topology that the guest is shown then."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

# Documentation/admin-guide/cputopology.rst.
CPU_FOLDER = Path("/sys/devices/system/cpu")


class Position(Struct, frozen=True, order=True):
    """Where a processor of the host is: its package (socket) and its core there."""

    package: int
    core: int


class Topology(Struct, frozen=True):
    """What a guest is shown: so many sockets, each of so many cores, each of so many threads."""

    sockets: int
    cores: int
    threads: int


class Pinning(Struct, frozen=True):
    """The host's processor of each virtual one, in order, and the ``topology`` that they have."""

    processors: tuple[int, ...]
    topology: Topology


def read_positions(folder: Path = CPU_FOLDER) -> dict[int, Position]:
    """Return where each processor is that this process may run on; one that the kernel says nothing of is a core of its
    own."""
    positions = {}
    for processor in sorted(os.sched_getaffinity(0)):
        topology = folder / f"cpu{processor}" / "topology"
        try:
            package = int((topology / "physical_package_id").read_text())
            core = int((topology / "core_id").read_text())
        except (OSError, ValueError):
            package, core = 0, processor
        positions[processor] = Position(package, core)
    return positions


def choose_processors(positions: Mapping[int, Position], taken: Iterable[int], count: int) -> tuple[int, ...]:
    """Return ``count`` of the host's processors: those that the fewest of the ``taken`` are, and of these neighbours.

    One is chosen twice only when there are fewer than ``count``. Processors of one package, and threads of one core,
    come after each other.
    """
    used = Counter({processor: 0 for processor in positions})
    used.update(processor for processor in taken if processor in positions)
    chosen: list[int] = []
    for _ in range(count):
        best = min(used, key=lambda processor: (used[processor], positions[processor], processor))
        used[best] += 1
        chosen.append(best)
    return tuple(sorted(chosen, key=lambda processor: (positions[processor], processor)))


def find_topology(positions: Mapping[int, Position], processors: Sequence[int]) -> Topology:
    """Return the topology that the chosen processors have; cores of one socket when it is not a regular one."""
    flat = Topology(1, len(processors), 1)
    threads = Counter(positions[processor] for processor in processors)
    cores = Counter(position.package for position in threads)
    if len(set(threads.values())) > 1 or len(set(cores.values())) > 1 or len(set(processors)) < len(processors):
        return flat
    return Topology(len(cores), next(iter(cores.values())), next(iter(threads.values())))


def make_pinning(taken: Iterable[int], count: int) -> Pinning:
    """Return the pinning of a guest with ``count`` virtual processors, while others are pinned to those ``taken``."""
    positions = read_positions()
    processors = choose_processors(positions, taken, count)
    return Pinning(processors, find_topology(positions, processors))
