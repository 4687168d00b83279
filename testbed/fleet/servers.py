"""The servers of a fleet as they are before they are consolidated, in columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError

# Columns are arrays of 64-bit floats.
Column = Any
# No server or host has more: beyond is damage.
MOST_CORES, MOST_BYTES = 1e6, 1e18
_SHOWN = 3


class Servers(Struct, frozen=True):
    """Servers, one an element of each column.

    ``cores`` are the processors that each has, ``cpu_mean`` and ``cpu_sd`` the processors that it keeps busy, their
    mean and standard deviation over time, ``memory_bytes`` what it needs. ``names`` are those of a trace, empty for
    drawn ones. ``assumptions`` say what the columns rest on, a sentence each.
    """

    cores: Column
    cpu_mean: Column
    cpu_sd: Column
    memory_bytes: Column
    source: str
    assumptions: tuple[str, ...]
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.cores)

    @property
    def utilisation(self) -> float:
        """The fraction of all their processors that is busy on average."""
        return float(self.cpu_mean.sum() / self.cores.sum())

    def name(self, index: int) -> str:
        """Return what a server is called in a message."""
        return self.names[index] if self.names else f"server {index + 1}"

    def list_names(self, chosen: Column) -> str:
        """Return the first names of the servers that a column of booleans chooses, and how many more there are."""
        indices = np.flatnonzero(chosen)
        named = ", ".join(self.name(int(index)) for index in indices[:_SHOWN])
        return named + (f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else "")


def check_servers(servers: Servers) -> Servers:
    """Return the servers. Raises UsageError where there are none, or one needs nothing, less or no number."""
    if not servers.count:
        raise UsageError(f"{servers.source}: there is no server", "give at least one")
    columns = {"cores": servers.cores, "CPU": servers.cpu_mean, "memory": servers.memory_bytes}
    for what, column in columns.items():
        most = MOST_BYTES if what == "memory" else MOST_CORES
        bad = ~(np.isfinite(column) & (column > 0) & (column <= most))
        if bad.any():
            worst = float(column[np.flatnonzero(bad)[0]])
            raise UsageError(
                f"{servers.source}: {servers.list_names(bad)}: a demand for {what} of {worst:g}",
                "every server needs more than nothing; leave those out that do not",
            )
    return servers


def scale(servers: Servers, load: float = 1.0, memory: float = 1.0) -> Servers:
    """Return the servers with so many times the load, at most all of their processors, and so many times the memory."""
    mean = np.minimum(servers.cpu_mean * load, servers.cores)
    sd = servers.cpu_sd * (mean / servers.cpu_mean)
    return replace(servers, cpu_mean=mean, cpu_sd=sd, memory_bytes=servers.memory_bytes * memory)


def take_first(servers: Servers, most: int) -> Servers:
    """Return the first servers of a fleet, which are drawn as all others are."""
    if servers.count <= most:
        return servers
    return replace(
        servers,
        cores=servers.cores[:most],
        cpu_mean=servers.cpu_mean[:most],
        cpu_sd=servers.cpu_sd[:most],
        memory_bytes=servers.memory_bytes[:most],
        names=servers.names[:most],
    )
