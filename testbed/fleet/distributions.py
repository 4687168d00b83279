"""Draws the servers of a fleet from stated distributions, from a seed.

A mix says what is drawn; each of its numbers is an assumption that the result names.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.servers import Column, Servers, check_servers

GIB = 2**30
# The talk's means: what it says of McKinsey 2008, Accenture 2011 and Gartner 2012 (scenarios/utilisation/history.yaml).
TALK = (0.05, 0.08, 0.12)
# The mean of machines' mean CPU use in Azure's trace of 2019.
AZURE_UTILISATION = 0.14
# How narrow the Beta distribution of mean CPU use is (a + b): 20 makes the standard deviation of 5 % about 5 %.
CONCENTRATION = 20.0
# Beyond, no batch is drawn: one would be the fleet.
LARGEST_BATCH = 1000
MOST_SERVERS = 2_000_000
_TOLERANCE = 1e-6


class Size(Struct, frozen=True):
    """A size of server: the share of servers that have it, processors, and bytes of memory."""

    share: float
    cores: float
    memory_bytes: float


class Mix(Struct, frozen=True):
    """What servers are drawn from.

    ``utilisation`` is the mean fraction of its processors that a server keeps busy, from a Beta distribution of
    ``concentration`` (0: all alike). ``memory_cv`` is the coefficient of variation of memory around its size's (Gamma;
    0: none). ``zombies`` is the share of servers that do next to nothing: they keep 0 to ``zombie_most`` busy.
    ``peak_to_mean`` is the ratio of a server's busiest to its mean hour, of a day like a sine. ``batch_shape``
    is the shape of the Pareto distribution of how many equal servers come together (0: each comes alone).
    """

    name: str
    sizes: tuple[Size, ...]
    utilisation: float
    concentration: float = CONCENTRATION
    memory_cv: float = 0.0
    zombies: float = 0.0
    zombie_most: float = 0.03
    peak_to_mean: float = 2.0
    batch_shape: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def cpu_cv(self) -> float:
        """The coefficient of variation of a server's CPU use over time."""
        return find_variation(self.peak_to_mean)


def find_variation(peak_to_mean: float) -> float:
    """Return the coefficient of variation over a day like a sine: (peak / mean - 1) / sqrt(2).

    Raises UsageError for a peak below the mean, or a thousand times as high.
    """
    if not 1 <= peak_to_mean <= 1000:
        raise UsageError(f"a ratio of peak to mean of {peak_to_mean:g}", "a peak is at least the mean: 1 to 1000")
    return (peak_to_mean - 1) / math.sqrt(2)


def talk_mix(utilisation: float, cores: float = 4, memory_bytes: float = 2.25 * GIB) -> Mix:
    """Return servers as the talk has them: one size, lightly used."""
    note = f"{memory_bytes / GIB:g} GiB of memory a server: what VKernel's index of 2010 found allocated on average"
    return Mix("talk", (Size(1.0, cores, memory_bytes),), utilisation, memory_cv=0.5, notes=(note,))


def azure_mix(utilisation: float = AZURE_UTILISATION) -> Mix:
    """Return servers by the shares of Azure's trace of 2019 (AzurePublicDatasetV2).

    Its buckets of processors hold 1,502,458 (2), 776,118 (4), 183,887 (8), 78,196 (24) and 10,428 (more than 24, taken
    as 30 as its own analysis does) of 2,551,087 machines, as counted in its vmtable by a third party.
    """
    counts = {2: 1_502_458, 4: 776_118, 8: 183_887, 24: 78_196, 30: 10_428}
    memory = {2: 4, 4: 16, 8: 32, 24: 64, 30: 70}
    total = sum(counts.values())
    sizes = tuple(Size(count / total, cores, memory[cores] * GIB) for cores, count in counts.items())
    notes = (
        "shares of processors: vmtable of AzurePublicDatasetV2, counted by a third party (secondary)",
        "memory of each size: 4, 16, 32, 64 and 70 GiB, buckets of the trace; which goes with which is assumed",
        "all memory of a machine counts as needed: Azure's trace has no use of memory",
    )
    return Mix("azure", sizes, utilisation, batch_shape=1.5, notes=notes)


def application_mix(utilisation: float, memory_bytes: float, cores: float = 4) -> Mix:
    """Return servers that each run the measured application, at the load that keeps that part of a machine busy."""
    note = f"every server is the run's application: {memory_bytes / 2**20:.1f} MiB of memory, as a further copy has"
    return Mix("application", (Size(1.0, cores, memory_bytes),), utilisation, concentration=0.0, notes=(note,))


def check_mix(mix: Mix) -> Mix:
    """Return the mix. Raises UsageError where no servers can be drawn from it, with what is wrong."""
    total = math.fsum(size.share for size in mix.sizes)
    if not mix.sizes or abs(total - 1) > _TOLERANCE or any(size.share < 0 for size in mix.sizes):
        raise UsageError(
            f"{mix.name}: the shares of its sizes sum to {total:g}", "give shares from 0 to 1 that sum to 1"
        )
    if any(not (size.cores > 0 and size.memory_bytes > 0) for size in mix.sizes):
        raise UsageError(f"{mix.name}: a size has no processors, or no memory", "both must be more than 0")
    fractions = {"utilisation": mix.utilisation, "zombies": mix.zombies, "zombie_most": mix.zombie_most}
    for what, value in fractions.items():
        if not (0 <= value < 1 and (value > 0 or what == "zombies")):
            raise UsageError(f"{mix.name}: {what} is {value:g}", "a fraction above 0 and below 1 (zombies may be 0)")
    find_variation(mix.peak_to_mean)
    if not (mix.memory_cv >= 0 and mix.concentration >= 0):
        raise UsageError(f"{mix.name}: a variation of memory of {mix.memory_cv:g}", "0 or more")
    if mix.batch_shape and mix.batch_shape <= 1:
        raise UsageError(f"{mix.name}: a Pareto shape of {mix.batch_shape:g} has no mean", "more than 1, or 0 for none")
    return mix


def draw_servers(mix: Mix, count: int, seed: int) -> Servers:
    """Draw so many servers; the same seed always draws the same ones. Raises UsageError for what cannot be drawn."""
    check_mix(mix)
    if not 1 <= count <= MOST_SERVERS:
        raise UsageError(f"a fleet of {count} servers", f"1 to {MOST_SERVERS}")
    chance = np.random.default_rng([seed, count])
    sizes = _draw_batches(mix, count, chance)
    batches = len(sizes)
    kind = chance.choice(len(mix.sizes), size=batches, p=np.array([size.share for size in mix.sizes]) / _sum(mix))
    cores = np.array([size.cores for size in mix.sizes], dtype=float)[kind]
    memory = np.array([size.memory_bytes for size in mix.sizes], dtype=float)[kind]
    if mix.memory_cv:
        shape = 1 / mix.memory_cv**2
        memory = np.maximum(memory * chance.gamma(shape, 1 / shape, batches), memory * 0.05)
    busy = _draw_utilisation(mix, batches, chance)
    mean = np.repeat(busy * cores, sizes)
    return check_servers(
        Servers(
            np.repeat(cores, sizes),
            mean,
            mean * mix.cpu_cv,
            np.repeat(memory, sizes),
            f"{count} servers drawn from {mix.name} at {mix.utilisation:.3g} (seed {seed})",
            describe_mix(mix),
        )
    )


def _sum(mix: Mix) -> float:
    return math.fsum(size.share for size in mix.sizes)


def _draw_batches(mix: Mix, count: int, chance: np.random.Generator) -> Column:
    """Return how many equal servers come together, batch after batch; they add up to ``count``."""
    if not mix.batch_shape:
        return np.ones(count, dtype=np.int64)
    most = max(1, min(LARGEST_BATCH, count // 20))
    drawn = np.minimum(1 + chance.pareto(mix.batch_shape, count), most).astype(np.int64)
    ends = np.cumsum(drawn)
    batches = drawn[: int(np.searchsorted(ends, count)) + 1].copy()
    batches[-1] -= batches.sum() - count
    return batches


def _draw_utilisation(mix: Mix, count: int, chance: np.random.Generator) -> Column:
    mean, narrow = mix.utilisation, mix.concentration
    busy = chance.beta(mean * narrow, (1 - mean) * narrow, count) if narrow else np.full(count, mean)
    idle = chance.random(count) < mix.zombies
    busy[idle] = chance.uniform(0, mix.zombie_most, int(idle.sum()))
    return np.clip(busy, 1e-4, 1.0)  # a machine that is on uses something: 0.01 % is a kernel's ticks


def describe_mix(mix: Mix) -> tuple[str, ...]:
    """Return what the servers of a mix rest on, a sentence each."""
    spread = f"Beta, a + b = {mix.concentration:g}" if mix.concentration else "all alike"
    lines = [
        f"mean CPU use of a server: {mix.utilisation:.3g} of its processors ({spread})",
        f"over a day its busiest hour is {mix.peak_to_mean:g} times its mean (a sine): standard deviation"
        f" {mix.cpu_cv:.2f} of the mean",
    ]
    lines += [f"memory varies by {mix.memory_cv:g} of its mean (Gamma)"] if mix.memory_cv else []
    if mix.zombies:
        lines.append(f"{mix.zombies:.0%} of servers are zombies, below {mix.zombie_most:.0%} CPU use")
    if mix.batch_shape:
        lines.append(f"servers come in equal batches (Pareto, shape {mix.batch_shape:g}, at most {LARGEST_BATCH})")
    return (*lines, "a processor of the old servers does as much as one of the new hosts", *mix.notes)
