"""What consolidation found, in words and in rows: servers per host, utilisation before and after, what idle ones cost.

The assumptions stand beside the figures: what a server is, what its utilisation is a part of, and which packing a
number of servers belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import to_builtins

from reports.conditions import in_instruction_time
from reports.quantities import MEBIBYTE, Quantity, format_number
from testbed.analysis import Platform, Run, get_mapping, list_compared
from testbed.consolidations import (
    MEASURE,
    Calibration,
    Mix,
    Packed,
    estimate_idle,
    list_mixes,
    read_calibration,
    select_middle,
)
from testbed.statistics import Estimate

_HOUR_S = 3600.0
_PERCENT = 100.0
SERVERS = Quantity("servers within the SLO (packed by use)", "", most_decimals=0)
AFTER = Quantity("this host's use by all of them", "%", _PERCENT, most_decimals=1)
OVERHEAD = Quantity("processor time alone, times the calibrated platform's", "", most_decimals=2)
# A mix's figures by metric (testbed.measures.consolidation), as they stand in a table.
FIGURES: Mapping[str, Quantity] = {
    "servers": SERVERS,
    "servers_held": Quantity("of them within it for sure", "", most_decimals=0),
    "servers_declared": Quantity("servers that fit as declared (sum of limits)", "", most_decimals=0),
    "utilisation_before": Quantity("use of a machine of its own, before", "%", _PERCENT, most_decimals=1),
    "utilisation_after": AFTER,
    "utilisation_declared": Quantity("this host's use by those that fit as declared", "%", _PERCENT, most_decimals=1),
    "host_generator": Quantity("this host's use by the load generator, besides", "%", _PERCENT, most_decimals=1),
    "alone_cpu": Quantity("one server alone, part of this host", "%", _PERCENT, most_decimals=1),
    "packed_cpu": Quantity("a server beside all the others, part of this host", "%", _PERCENT, most_decimals=1),
    "alone_memory": Quantity("one server alone, cgroup charge", "MiB", MEBIBYTE),
    "packed_memory": Quantity("a server beside all the others, cgroup charge", "MiB", MEBIBYTE),
    "alone_p50": Quantity("latency p50 alone", "ms", 1e3),
    "packed_p50": Quantity("latency p50 beside all the others", "ms", 1e3),
    "alone_p99": Quantity("latency p99 alone", "ms", 1e3),
    "packed_p99": Quantity("latency p99 beside all the others", "ms", 1e3),
}
IDLE: Mapping[str, Quantity] = {
    "idle_cpu": Quantity("processor time per hour", "s", _HOUR_S),
    "idle_wakeups": Quantity("wake-ups per hour", "", _HOUR_S),
    "idle_memory": Quantity("memory, cgroup charge", "MiB", MEBIBYTE),
    "idle_pss": Quantity("memory, sum of PSS", "MiB", MEBIBYTE),
}
# Of those, what the short table has.
_IN_TABLE = ("servers", "servers_declared", "utilisation_before", "utilisation_after", "packed_memory", "packed_p99")
_ENDED = {
    "cap": "as many as were to be added",
    "slo": "then the service level broke",
    "memory": "then memory was short",
}


def show_servers(packed: Packed) -> str:
    """Return how many servers a platform held."""
    servers = packed.figures["servers"]
    least = "at least " if packed.is_capped and packed.figures["servers"].value else ""
    return f"{least}{SERVERS.show(servers.value)}"


def shorten_end(packed: Packed) -> str:
    """Return why no more servers were added, in a word or two."""
    ends = {"cap": "the cap", "slo": "the level broke", "memory": "memory"}
    return ", ".join(dict.fromkeys(ends.get(one.partition(":")[0], one[:20]) for one in packed.reasons))


def describe_end(packed: Packed) -> str:
    """Return why no more servers were added."""
    if packed.is_broken:
        return "the service level broke with one"
    return ", or ".join(dict.fromkeys(_ENDED.get(one.partition(":")[0], one[:60]) for one in packed.reasons))


def name_servers(run: Run, mix: Mix) -> str:
    """Return what servers a mix has."""
    calibration = read_calibration(run)
    machine = f" of a machine with {calibration.processors:g} processors" if calibration else " of a machine"
    zombies = f", {mix.zombies * 100:.3g} % of them idle" if mix.zombies else ""
    return f"servers that use {mix.fraction * 100:.3g} %{machine}{zombies}"


def describe_middle(run: Run, platforms: Sequence[Platform]) -> str:
    """Return how many servers of the mix in the middle these platforms held, and how well the host was used then."""
    middle = select_middle(run)
    return _describe_mixes(run, platforms, [middle] if middle else [])


def describe_others(run: Run, platforms: Sequence[Platform]) -> str:
    """Return the same of all other mixes."""
    return _describe_mixes(run, platforms, [mix for mix in list_mixes(run) if mix != select_middle(run)])


def _describe_mixes(run: Run, platforms: Sequence[Platform], mixes: Sequence[Mix]) -> str:
    sentences = []
    for mix in mixes:
        by_name = {packed.platform: packed for packed in mix.packed}
        parts = [f"{_describe(by_name[one.name])} as {one.label}" for one in platforms if one.name in by_name]
        if parts:
            sentences.append(f"Of {name_servers(run, mix)}, this host held {_listed(parts)}.")
    return " ".join(sentences)


def _describe(packed: Packed) -> str:
    if "servers" not in packed.figures:
        return "an unknown number"
    servers = packed.figures["servers"]
    said = [describe_end(packed)]
    if after := packed.figures.get("utilisation_after"):
        said.append(f"its processors {AFTER.show(after.value)} used by them")
    if packed.overhead is not None:
        said.append(f"{OVERHEAD.show(packed.overhead.value)} times the processor time each")
    if spread := SERVERS.qualify(servers):
        said.append(f"{'95 % interval ' if servers.is_interval else ''}{spread}")
    return f"{show_servers(packed)} ({'; '.join(said)})"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def describe_alone(run: Run, platform: Platform) -> list[str]:
    """Return the same of one platform that is not compared, a part of a sentence each."""
    found = []
    for mix in list_mixes(run):
        for packed in mix.packed:
            if packed.platform == platform.name:
                found.append(f"of {name_servers(run, mix)} it held {_describe(packed)}")
    idle = _describe_idle(run, platform)
    return [*found, *([f"an idle server takes {idle} in an hour"] if idle else [])]


def describe_idle(run: Run, platforms: Sequence[Platform]) -> str:
    """Return what an idle server costs in an hour."""
    parts = [f"{idle} as {one.label}" for one in platforms if (idle := _describe_idle(run, one))]
    return f"In an hour an idle server takes {_listed(parts)}{in_instruction_time(run)}." if parts else ""


def _describe_idle(run: Run, platform: Platform) -> str:
    idle = estimate_idle(run, platform.name)
    shown = (("idle_cpu", " of processor time"), ("idle_wakeups", " wake-ups"), ("idle_memory", " of memory"))
    return ", ".join(f"{IDLE[name].show(idle[name].value)}{what}" for name, what in shown if name in idle)


def list_rows(run: Run) -> list[tuple[str, Quantity, dict[str, Estimate]]]:
    """Return the rows of the short table: a heading, the figure, and its estimate by platform."""
    compared = {one.name for one in list_compared(run, MEASURE)}
    rows = []
    for mix in list_mixes(run):
        heading = f"{mix.fraction * 100:.3g} % servers" + (f", {mix.zombies * 100:.3g} % idle" if mix.zombies else "")
        for name in _IN_TABLE:
            cells = {
                packed.platform: packed.figures[name]
                for packed in mix.packed
                if packed.platform in compared and name in packed.figures
            }
            rows.append((heading, FIGURES[name], cells))
        overheads = {
            packed.platform: packed.overhead
            for packed in mix.packed
            if packed.overhead is not None and packed.platform in compared
        }
        rows.append((heading, OVERHEAD, overheads))
    idle = {name: estimate_idle(run, name) for name in (one.name for one in list_compared(run, MEASURE))}
    for name, quantity in IDLE.items():
        cells = {platform: of[name] for platform, of in idle.items() if name in of}
        rows.append(("an idle server", quantity, cells))
    return [row for row in rows if row[2]]


def list_assumptions(run: Run) -> list[str]:
    """Return what the figures rest on, a sentence each."""
    calibration, settings = read_calibration(run), get_mapping(get_mapping(run.manifest.get("settings")).get(MEASURE))
    slo = get_mapping(get_mapping(run.manifest.get("settings")).get("slo"))
    return [
        *_describe_servers(run, calibration),
        _describe_load(settings),
        "Utilisation is processor time of the servers' cgroups (of a virtual machine: of all of QEMU) as a part of all"
        " processors of this host. The load generator runs on the same host, is told apart, and takes processors that"
        " servers could have: with a client of its own a host would hold more.",
        "Packed by use: servers are added beyond the sum of their limits (overcommitted) until the service level breaks"
        f" (p99 above {_setting(slo, 'p99_ms')} ms, or more than {_setting(slo, 'error_fraction', 100)} % of requests"
        " failing) or memory ends; a platform that gives memory back does so. Packed as declared: no more than the sum"
        " of the services' limits allows; the number is the same for all platforms unless fewer held the service level,"
        " and what a platform takes beside a server's limits is not in it. To set one platform's number by use beside"
        " another's as declared is to compare policies.",
        "From ten servers on, a tenth of them is added at once: the number is of the last look at which it held.",
        "All servers are copies of one application, which share pages and layers as such; different ones share less.",
        "A host that is filled like this has no room for a peak that all servers have at once, nor for another host's"
        " failure.",
    ]


def _setting(settings: Mapping[str, Any], name: str, scale: float = 1.0) -> str:
    value = settings.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return format_number(value * scale) if is_number and value is not None else "?"


def _describe_servers(run: Run, calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return ["This run has no sound record of what a server's load was."]
    labels = {one.name: one.label for one in (*run.platforms, *run.again)}
    rates = "; ".join(
        f"{one.fraction * 100:.3g} %: {format_number(one.rate_per_s)} requests/s, which used {one.reached * 100:.3g} %"
        for one in calibration.rates
    )
    is_other = calibration.processors != calibration.host_processors
    machine = f"{calibration.processors:g} processors"
    machine += f" (this host has {calibration.host_processors:g})" if is_other else ""
    platform = labels.get(calibration.platform, calibration.platform)
    return [
        "A server is a copy of the whole application, at the rate at which one copy alone used a stated part of a"
        f" machine with {machine}. The rates were found once, on {platform}, and are the same for all"
        f" platforms ({rates}): servers do the same work everywhere, and platforms differ in what that takes."
    ]


def _describe_load(settings: Mapping[str, Any]) -> str:
    shape = settings.get("shape")
    if shape == "diurnal":
        return (
            f"Each server's rate follows a day whose peak is {_setting(settings, 'peak_to_mean')} times its mean,"
            f" pressed into a window of {_setting(settings, 'window_s')} s; the phases of servers are spread evenly,"
            " which is kinder than days that have their peaks together."
        )
    if shape == "trace":
        return (
            f"Each server replays the scenario's trace, scaled to its mean rate and pressed into a window of"
            f" {_setting(settings, 'window_s')} s; each begins elsewhere in it."
        )
    return "Requests come at random at an even rate (Poisson), which is kinder than the peaks of a day."


def as_json(run: Run) -> dict[str, Any]:
    """Return all of it as data, in base units."""
    return {
        "calibration": to_builtins(read_calibration(run)),
        "mixes": to_builtins(list_mixes(run)),
        "idle": {one.name: to_builtins(idle) for one in run.platforms if (idle := estimate_idle(run, one.name))},
        "assumptions": list_assumptions(run) if list_mixes(run) else [],
    }
