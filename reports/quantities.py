"""Names and formats figures: title, unit, number of digits, and the interval."""

from __future__ import annotations

import math

from msgspec import Struct

from runtime.output import printable
from testbed.statistics import Estimate, MeanEstimate

MEBIBYTE = 1 / 2**20
# What stands in place of a latency where a platform could not keep up.
SATURATED = "saturated"
# Marks an interval that is wider because neighbouring trials were found to resemble each other.
WIDENED = "\N{DAGGER}"
INTERVALS = (
    "Medians, with 95 % intervals or, of fewer than six trials, the range. \N{DAGGER} marks an interval that is wider "
    "since neighbouring trials resemble each other."
)
_NARROW = "\N{NARROW NO-BREAK SPACE}"


class Quantity(Struct, frozen=True):
    """A measured quantity as it is shown: the value in its base unit, times ``scale``, is in ``unit``.

    A number has three significant digits, but no more than ``most_decimals``: beyond is below what can be measured.
    """

    title: str
    unit: str
    scale: float = 1.0
    most_decimals: int = 6

    def show(self, value: float) -> str:
        """Return the number with its unit."""
        scaled = value * self.scale
        return f"{_fixed(scaled, self._decimals(scaled))} {self.unit}".rstrip()

    def span(self, low: float, high: float, value: float) -> str:
        """Return an interval without unit, to as many decimals as its estimate ``value`` is shown with."""
        decimals = self._decimals(value * self.scale)
        between = "–" if low >= 0 else " to "
        return f"{_fixed(low * self.scale, decimals)}{between}{_fixed(high * self.scale, decimals)}"

    def qualify(self, estimate: Estimate | MeanEstimate) -> str:
        """Return what qualifies a figure: its interval, with a mark where it is widened, or the range of too few
        trials; empty when there is neither."""
        if estimate.low is None or estimate.high is None or (isinstance(estimate, Estimate) and estimate.n < 2):
            return ""
        if estimate.low == estimate.high == 0:
            return ""  # a time that is zero by definition
        span = self.span(estimate.low, estimate.high, estimate.value)
        return f"{span}{WIDENED if estimate.is_widened else ''}" if estimate.is_interval else f"range {span}"

    def basis(self, estimate: Estimate | MeanEstimate) -> str:
        """Return what a figure rests on, for a sentence: the number of trials and its interval or range, in
        brackets."""
        spread = self.qualify(estimate)
        shown = f"{'95 % interval ' if estimate.is_interval else ''}{spread} {self.unit}"
        if isinstance(estimate, MeanEstimate):
            return f" (mean of {estimate.n}; {shown})" if spread else f" (mean of {estimate.n})"
        return f" (median of {estimate.n}; {shown})" if spread else " (one trial)"

    def _decimals(self, scaled: float) -> int:
        return min(self.most_decimals, _decimals(scaled))


def _seconds(title: str) -> Quantity:
    return Quantity(title, "s", most_decimals=4)


START = {
    "request": _seconds("requested"),
    "defined": _seconds("machine described"),
    "spawned": _seconds("QEMU running"),
    "created": _seconds("instance created"),
    "program": _seconds("platform's own program executed"),
    "firmware": _seconds("firmware started"),
    "boot_loader": _seconds("boot loader started"),
    "restored": _seconds("saved state loaded"),
    "kernel_entry": _seconds("guest kernel entered"),
    "first_userspace": _seconds("guest's first process"),
    "initial_ramdisk": _seconds("initial RAM disk's script running"),
    "init": _seconds("systemd started"),
    "cloud_local": _seconds("cloud-init: before the network"),
    "cloud_network": _seconds("cloud-init: network is up"),
    "cloud_config": _seconds("cloud-init: configuring"),
    "cloud_final": _seconds("cloud-init: last stage"),
    "container_created": _seconds("container in the guest created"),
    "first_process": _seconds("command running"),
    "identity": _seconds("own identity set"),
    "port_open": _seconds("port open"),
    "ready": _seconds("first correct answer"),
    "steady": _seconds("latency steady"),
}
START_EXTRAS = {
    "steady_latency": Quantity("latency from then on", "ms", 1e3),
    "pool_fill": _seconds("made before the request"),
    "pool_memory": Quantity("memory while it waits", "MiB", MEBIBYTE),
    "overhead_memory": Quantity("memory of its own processes", "MiB", MEBIBYTE, most_decimals=1),
    "overhead_cpu": Quantity("CPU time of its own processes", "ms", 1e3, most_decimals=1),
    "shared_overhead_memory": Quantity("memory of its shared daemons", "MiB", MEBIBYTE, most_decimals=1),
    "shared_overhead_cpu": Quantity("CPU time of its shared daemons", "ms", 1e3, most_decimals=1),
}
RULERS = {
    "memory_cgroup": Quantity("cgroup charge", "MiB", MEBIBYTE),
    "memory_pss": Quantity("sum of PSS", "MiB", MEBIBYTE),
    "memory_available": Quantity("drop of MemAvailable", "MiB", MEBIBYTE),
    "memory_metered": Quantity("counted by its hypervisor", "MiB", MEBIBYTE),
}
HELD_BACK = Quantity("periods held back by its quota", "%", 100.0, most_decimals=1)
LOAD = {
    "achieved_rate": Quantity("answered", "/s"),
    "latency_p50": Quantity("latency p50", "ms", 1e3),
    "latency_p90": Quantity("latency p90", "ms", 1e3),
    "latency_p99": Quantity("latency p99", "ms", 1e3),
    "latency_p99_9": Quantity("latency p99.9", "ms", 1e3),
    "latency_n": Quantity("latency: requests", ""),
    "cpu_per_request": Quantity("CPU time per request", "ms", 1e3),
    "memory_cgroup": Quantity("memory, cgroup charge", "MiB", MEBIBYTE),
    "memory_pss": Quantity("memory, sum of PSS", "MiB", MEBIBYTE),
    "memory_metered": Quantity("memory, counted by its hypervisor", "MiB", MEBIBYTE),
    "memory_per_request": Quantity("memory per request/s", "MiB", MEBIBYTE),
    "overhead_memory": Quantity("of it the platform's own processes", "MiB", MEBIBYTE, most_decimals=1),
    "overhead_cpu": Quantity("their CPU time meanwhile", "ms", 1e3, most_decimals=1),
    "throttled_periods": HELD_BACK,
    "host_utilisation": Quantity("host utilisation", "%", 100.0, most_decimals=1),
    "host_application": Quantity("of it the application", "%", 100.0, most_decimals=1),
    "host_generator": Quantity("the generator", "%", 100.0, most_decimals=1),
    "host_others": Quantity("others", "%", 100.0, most_decimals=1),
}
# From where counts begin until where they end, or for each request (testbed.measures.counting).
COUNTS = {
    "exits": Quantity("VM exits", ""),
    "exits_page_fault": Quantity("exits: page fault of the guest's memory", ""),
    "exits_io": Quantity("exits: port of a device", ""),
    "exits_mmio": Quantity("exits: memory of a device that QEMU serves", ""),
    "exits_halt": Quantity("exits: guest idle (HLT)", ""),
    "exits_interrupt": Quantity("exits: interrupt of the host", ""),
    "exits_interrupt_window": Quantity("exits: ready for an interrupt", ""),
    "exits_nmi_window": Quantity("exits: ready for an NMI", ""),
    "exits_hypercall": Quantity("exits: hypercall", ""),
    "exits_other": Quantity("exits: others (registers, CPUID, notices to virtio)", ""),
    "page_faults": Quantity("page faults", ""),
    "major_faults": Quantity("of them with input from a disk", ""),
    "context_switches": Quantity("context switches", ""),
    "host_context_switches": Quantity("context switches of the whole host", ""),
    "host_interrupts": Quantity("interrupts of the whole host", ""),
    "metered_cpu": _seconds("processor time, by the hypervisor's count"),
    "metered_memory": Quantity("memory, by the hypervisor's count", "MiB", MEBIBYTE),
}


def describe_phase(name: str) -> Quantity:
    """Return a phase of a start; one that only some platform has goes by its own name."""
    return START.get(name) or _seconds(name.replace("_", " "))


def format_number(value: float) -> str:
    """Return a number to three significant digits, written out; what is none, of a damaged file, as it is."""
    if not math.isfinite(value):
        return str(value)
    return _fixed(value, min(9, _decimals(value)))


def format_published(value: float) -> str:
    """Return a number of a publication, written out: whole from a thousand on, else to four significant digits."""
    return _fixed(value, 0) if abs(value) >= 1000 else f"{value:.4g}"


def _decimals(value: float) -> int:
    return 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return "0"
    return text.replace(",", _NARROW).replace("-", "\N{MINUS SIGN}")


def format_plain(value: float) -> str:
    """Return a round number, such as a tick, without needless digits; large ones with a prefix."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < size * 1000:
            return f"{value / (1e3 if prefix == 'k' else size):g}{prefix}".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def sanitize(text: str) -> str:
    """Return a text for a terminal: nothing that a run folder brought controls it, and the spaces in numbers stay."""
    return _NARROW.join(map(printable, text.split(_NARROW)))
