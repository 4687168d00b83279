"""What hardware would charge for: counts of a run, and how a ratio moves with an assumed price of a guest's exit.

In instruction time an exit costs the instructions of KVM and QEMU that handle it. What the processor itself takes to
switch is not in it, so that is drawn as an assumption, from nothing to 4 µs. On a host of its own that price is in
the measured times already, and only the counts are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from reports.quantities import COUNTS, Quantity
from testbed.analysis import (
    Platform,
    Run,
    estimate_start_counts,
    estimate_start_phases,
    estimate_utilisation,
    list_compared,
)
from testbed.statistics import Estimate

HIGHEST_PRICE_USEC = 4.0
CONTAINER = "container"
PER_REQUEST = "_per_request"
RATIO = Quantity("ratio", "")


class Published(Struct, frozen=True):
    """A published price of an exit, in microseconds: from ``low_usec`` to ``high_usec`` where its source gives cycles
    and no clock; there it is that of 3 to 2 GHz."""

    name: str
    low_usec: float
    high_usec: float
    figure: str
    source: str


def _at_clocks(cycles: int, low_ghz: float = 2.0, high_ghz: float = 3.0) -> tuple[float, float]:
    return cycles / high_ghz / 1e3, cycles / low_ghz / 1e3


PUBLISHED = (
    Published(
        "AMD, VMRUN until after the exit",
        *_at_clocks(1360),
        "1,360 cycles of the time stamp counter, 2020; the entry, a short guest and the exit",
        "A discussion of saving host state by VMSAVE, the kernel's mailing list, December 2020: https://lkml.iu.edu/hypermail/linux/kernel/2012.2/00527.html",
    ),
    Published(
        "Intel Skylake, hypercall",
        *_at_clocks(1539),
        "1,539 cycles, vmcall of kvm-unit-tests, 2020; there and back, with KVM's handler",
        "W. Li, KVM: VMX: Micro-optimize vmexit time when not exposing PMU, kvm@vger.kernel.org, 12 March 2020, "
        "message 1584007547-4802-1",
    ),
    Published(
        "Intel Nehalem, the switch alone",
        *_at_clocks(2000, 2.93, 2.93),
        "2,000 cycles at 2.93 GHz, Xeon X5570, KVM of Linux 2.6.34",
        "A. Landau, M. Ben-Yehuda, A. Gordon: SplitX: Split Guest/Hypervisor Execution on Multi-Core, USENIX WIOV 2011",
    ),
    Published(
        "nested: KVM below Hyper-V, CPUID",
        *_at_clocks(8304),
        "8,304 cycles with the enlightened VMCS, 18,890 without it (which is beyond the chart), 2018",
        "V. Kuznetsov, message of the commit that brought arch/x86/kvm/vmx_evmcs.h into Linux",
    ),
)


class Charged(Struct, frozen=True):
    """A figure of a machine and of the container beside it, in seconds, and the exits that are to be charged."""

    platform: Platform
    seconds: float
    exits: float
    container_s: float

    def ratio(self, price_usec: float) -> float:
        """Return how many times as long as the container it takes when each exit costs so many microseconds."""
        return (self.seconds + self.exits * price_usec / 1e6) / self.container_s


class Ratios(Struct, frozen=True):
    """What is drawn in one chart: its title, what is set in relation, and each machine's figures."""

    title: str
    what: str
    charged: tuple[Charged, ...]


def select_ratios(run: Run) -> list[Ratios]:
    """Return what can be set against the container, in a run of instruction time; nothing of others, in whose times the
    price of exits is already."""
    if not run.instruction_time:
        return []
    ready: dict[str, tuple[float, float | None]] = {}
    for one in _machines(run, "start"):
        if estimate := estimate_start_phases(run, one.name).get("ready"):
            exits = estimate_start_counts(run, one.name).get("exits")
            ready[one.name] = estimate.value, exits.value if exits else None
    found = [("Start", "time to the first correct answer", _charge(run, ready))]
    rate, at_rate = select_rate(run)
    load: dict[str, tuple[float, float | None]] = {}
    for name, figures in at_rate.items():
        if cpu := figures.get("cpu_per_request"):
            exits = figures.get(f"exits{PER_REQUEST}")
            load[name] = cpu.value, exits.value if exits else None
    found.append(("Processor time", f"CPU time per request at {rate:g} requests/s", _charge(run, load)))
    return [Ratios(*one) for one in found if one[2]]


def _machines(run: Run, measure: str) -> list[Platform]:
    """Return the container, and platforms that start cold and are not emulated within the run's own host."""
    return [one for one in list_compared(run, measure) if one.temperature == "cold" and not one.emulated]


def _charge(run: Run, figures: Mapping[str, tuple[float, float | None]]) -> tuple[Charged, ...]:
    container_s = figures.get(CONTAINER, (0.0, None))[0]
    if container_s <= 0:
        return ()
    by_name = {one.name: one for one in run.platforms}
    return tuple(
        Charged(by_name[name], seconds, exits, container_s)
        for name, (seconds, exits) in figures.items()
        if exits is not None
    )


def select_rate(run: Run) -> tuple[float, Mapping[str, Mapping[str, Estimate]]]:
    """Return the highest rate that all platforms under load were offered, and each one's figures there, by name."""
    by_platform = {one.name: estimate_utilisation(run, one.name) for one in _machines(run, "utilisation")}
    by_platform = {name: rates for name, rates in by_platform.items() if rates}
    shared = set.intersection(*(set(rates) for rates in by_platform.values())) if by_platform else set()
    if not shared:
        return 0.0, {}
    rate = max(shared)
    return rate, {name: rates[rate] for name, rates in by_platform.items()}


class CountRow(Struct, frozen=True):
    """A count by platform; a platform that has it not is not in it."""

    name: str
    quantity: Quantity
    estimates: Mapping[str, Estimate]


def list_start_counts(run: Run) -> list[CountRow]:
    """Return the counts of starts, from the request until ready."""
    return _rows({one.name: estimate_start_counts(run, one.name) for one in run.platforms}, "")


def list_load_counts(run: Run) -> tuple[float, list[CountRow]]:
    """Return the highest rate that all platforms were offered, and the counts for each request there."""
    rate, at_rate = select_rate(run)
    return rate, _rows(at_rate, PER_REQUEST)


def _rows(by_platform: Mapping[str, Mapping[str, Estimate]], end: str) -> list[CountRow]:
    rows = []
    for name, quantity in COUNTS.items():
        estimates = {one: figures[f"{name}{end}"] for one, figures in by_platform.items() if f"{name}{end}" in figures}
        if any(estimate.high for estimate in estimates.values()):
            rows.append(CountRow(name, quantity, estimates))
    return rows


def explain_absence(run: Run, platform: Platform, name: str) -> str:
    """Return why a platform has a count not, in a few words."""
    if not name.startswith("exits"):
        return "not counted"
    if platform.emulated:
        return "emulated: none"
    return "not counted" if "accelerator" in platform.facts else "no guest"


def list_sources() -> Sequence[tuple[int, Published]]:
    """Return the published figures with the numbers that they have in charts."""
    return tuple(enumerate(PUBLISHED, 1))
