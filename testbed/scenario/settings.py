"""Reads how a scenario is measured: the settings under ``x-testbed`` of its compose.yaml, as frozen data.

All but the ready check's service and port have defaults. Whatever is wrong is noted, as ``yamltree`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from testbed.scenario.consolidation import CONSOLIDATION_KEYS, Consolidation, read_consolidation
from testbed.scenario.loads import LOAD_KEYS, Load, find_shortest_s, mean_rate_per_s, read_load
from testbed.scenario.neighbours import QUICK_KINDS, Neighbours, read_neighbours
from testbed.scenario.sections import Section, read_port, read_rate, read_service, read_status
from testbed.scenario.work import Work, read_figures
from testbed.yamltree.values import Value

__all__ = [
    "MOST_TRIALS", "Consolidation", "Density", "Load", "Neighbours", "Ready", "Settings", "Slo", "read_settings",
]  # fmt: skip


class Ready(Struct, frozen=True):
    """When the application counts as ready: the first answer with ``status`` (ANY_STATUS: any) whose body has ``body``;
    with no ``path``, when the port takes a connection.

    ``timeout_s`` is the limit for containers, ``timeout_vm_s`` for virtual machines, seconds since the request.
    """

    service: str
    port: int
    path: str
    status: int
    body: str
    timeout_s: float
    timeout_vm_s: float


class Slo(Struct, frozen=True):
    """The service level to hold: p99 latency in ms and the fraction of requests that may fail (0 to 1)."""

    p99_ms: float
    error_fraction: float


class Density(Struct, frozen=True):
    """The ramp: load on every application (requests/s), pause and window after each addition, most applications. With
    ``steps`` it is looked at with so many applications only."""

    rate_per_s: float
    settle_s: float
    window_s: float
    cap: int
    steps: tuple[int, ...] = ()


class Settings(Struct, frozen=True):
    """All that ``x-testbed`` says; ``trials`` is the number of starts on each platform, ``neighbours`` who turns bad
    beside the application, ``work`` what it does when it is asked once, if there is such."""

    trials: int
    ready: Ready
    load: Load
    slo: Slo
    density: Density
    neighbours: Neighbours = Neighbours()
    work: Work | None = None
    consolidation: Consolidation = Consolidation()

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured unless something else is asked for: work, of an application that is there to do that, and
        only starts of one that is not asked over HTTP."""
        if not self.ready.path:
            return ("start",)
        return ("start", "density", "utilisation") if self.work is None else ("start", "work")


_READY = ("service", "port", "path", "status", "body", "timeout_s", "timeout_vm_s")
_SLO = ("p99_ms", "error_fraction")
_DENSITY = ("rate_per_s", "settle_s", "window_s", "cap")
_NEIGHBOURS = ("kinds", "rate_per_s", "window_s")
_WORK = ("service", "port", "path", "timeout_s", "timeout_vm_s", "figures")
_KEYS = {
    "ready": _READY,
    "load": LOAD_KEYS,
    "slo": _SLO,
    "density": _DENSITY,
    "neighbours": _NEIGHBOURS,
    "work": _WORK,
    "consolidation": CONSOLIDATION_KEYS,
}
_SECTIONS = ("trials", *_KEYS)

MOST_TRIALS = 10_000


def read_settings(value: Value, services: tuple[str, ...]) -> tuple[Settings, Settings]:
    """Return the settings, and those for ``--quick``, of an application with these ``services``."""
    sections = value.fields((*_SECTIONS, "quick"))
    quick = sections.get("quick")
    overrides = {} if quick is None or quick.is_null else quick.fields(_SECTIONS)
    full = _settings(value, sections, {}, services)
    return full, _shortened(_settings(value, sections, overrides, services), _given(overrides))


def _settings(parent: Value, base: Mapping[str, Value], quick: Mapping[str, Value], names: tuple[str, ...]) -> Settings:
    """Return the settings from ``base``, overridden key by key by what ``quick`` says, with defaults for what neither
    does."""

    def section(name: str) -> Section:
        return Section(parent, base, quick, name, _KEYS[name])

    trials = {**base, **quick}.get("trials")
    ready = _ready(section("ready"), names)
    load = read_load(section("load"), ready.service, ready.port, ready.path, names)
    return Settings(
        trials=10 if trials is None or trials.is_null else trials.integer(1, MOST_TRIALS, "trials"),
        ready=ready,
        load=load,
        slo=_slo(section("slo")),
        density=_density(section("density")),
        neighbours=read_neighbours(section("neighbours"), load.rates_per_s, load.duration_s),
        work=_work(section("work"), ready, names),
        consolidation=read_consolidation(section("consolidation")),
    )


def _ready(section: Section, names: tuple[str, ...]) -> Ready:
    body, status = section.get("body"), section.get("status")
    service = section.needed("service", "the name of the service that is asked")
    port = section.needed("port", "the TCP port that it listens on")
    return Ready(
        service=read_service(service, names),
        port=read_port(port),
        path=section.path("/"),
        status=200 if status is None else read_status(status),
        body="" if body is None else body.text(),
        timeout_s=section.seconds("timeout_s", 30, above=0),
        timeout_vm_s=section.seconds("timeout_vm_s", 180, above=0),
    )


def _slo(section: Section) -> Slo:
    p99, errors = section.get("p99_ms"), section.get("error_fraction")
    return Slo(
        p99_ms=250.0 if p99 is None else p99.number("milliseconds", above=0, high=3_600_000),
        error_fraction=0.01 if errors is None else errors.number("a fraction of the requests", low=0, high=1),
    )


def _density(section: Section) -> Density:
    rate = section.get("rate_per_s")
    return Density(
        rate_per_s=5.0 if rate is None else read_rate(rate),
        settle_s=section.seconds("settle_s", 2),
        window_s=section.seconds("window_s", 5, above=0),
        cap=section.integer("cap", 24, 1, 10_000, "applications"),
    )


def _work(section: Section, ready: Ready, names: tuple[str, ...]) -> Work | None:
    """Return the work, if the section is there; unless it says otherwise, who answers the ready check does it."""
    if not section.is_there:
        return None
    service, port = section.get("service"), section.get("port")
    return Work(
        service=ready.service if service is None else read_service(service, names),
        port=ready.port if port is None else read_port(port),
        path=section.path("/run"),
        timeout_s=section.seconds("timeout_s", 120, above=0),
        timeout_vm_s=section.seconds("timeout_vm_s", 1200, above=0),
        figures=read_figures(section.needed("figures", "the names of its figures, each with a unit")),
    )


def _given(overrides: Mapping[str, Value]) -> frozenset[str]:
    """Return the keys that ``quick`` sets, as ``trials`` and ``load.duration_s``."""
    sections = {name: value for name, value in overrides.items() if name in _KEYS and not value.is_null}
    nested = (f"{name}.{key}" for name, value in sections.items() for key in value.fields(_KEYS[name]))
    return frozenset((*overrides, *nested))


def _shortened(settings: Settings, given: Collection[str]) -> Settings:
    """Return the quick settings: what ``quick`` does not set is made short, for a run of three minutes in all."""

    def least(key: str, value: float, short: float) -> float:
        return value if key in given else min(value, short)

    load, density, neighbours, packed = settings.load, settings.density, settings.neighbours, settings.consolidation
    duration_s = least("load.duration_s", load.duration_s, 4.0)
    rates = load.rates_per_s if "load.rates_per_s" in given else load.rates_per_s[:1]
    if load.schedule.trace:
        duration_s = find_shortest_s(load.schedule, duration_s, load.duration_s)
        rates = (mean_rate_per_s(load.schedule, duration_s),)
    return replace(
        settings,
        trials=int(least("trials", settings.trials, 2)),
        load=replace(
            load,
            rates_per_s=rates,
            duration_s=duration_s,
            warmup_s=least("load.warmup_s", load.warmup_s, 1.0),
            connections=int(least("load.connections", load.connections, 8)),
        ),
        density=replace(
            density,
            settle_s=least("density.settle_s", density.settle_s, 1.0),
            window_s=least("density.window_s", density.window_s, 2.0),
            cap=int(least("density.cap", density.cap, 2)),
        ),
        consolidation=replace(
            packed,
            fractions=packed.fractions if "consolidation.fractions" in given else _middle(packed.fractions),
            settle_s=least("consolidation.settle_s", packed.settle_s, 0.5),
            window_s=least("consolidation.window_s", packed.window_s, 3.0),
            idle_s=least("consolidation.idle_s", packed.idle_s, 3.0),
            cap=int(least("consolidation.cap", packed.cap, 16)),
        ),
        neighbours=replace(
            neighbours,
            kinds=neighbours.kinds if "neighbours.kinds" in given else QUICK_KINDS,
            window_s=least("neighbours.window_s", neighbours.window_s, duration_s),
        ),
    )


def _middle(fractions: tuple[float, ...]) -> tuple[float, ...]:
    return (sorted(fractions)[len(fractions) // 2],)
