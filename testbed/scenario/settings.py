"""Reads how a scenario is measured: the settings under ``x-testbed`` of its compose.yaml, as frozen data.

All but the ready check's service and port have defaults. Whatever is wrong is noted, as ``yamltree`` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from testbed.scenario.work import Work, read_figures
from testbed.scenario.yamltree import Value, quote, require

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")


class Ready(Struct, frozen=True):
    """When the application counts as ready: the first answer with ``status`` whose body contains ``body``.

    ``timeout_s`` is the limit for containers, ``timeout_vm_s`` for virtual machines, seconds since the request.
    """

    service: str
    port: int
    path: str
    status: int
    body: str
    timeout_s: float
    timeout_vm_s: float


class Load(Struct, frozen=True):
    """The requests to send: each of ``rates_per_s`` (requests/s) for ``duration_s`` after ``warmup_s``."""

    service: str
    port: int
    method: str
    path: str
    rates_per_s: tuple[float, ...]
    duration_s: float
    warmup_s: float
    connections: int


class Slo(Struct, frozen=True):
    """The service level to hold: p99 latency in ms and the fraction of requests that may fail (0 to 1)."""

    p99_ms: float
    error_fraction: float


class Density(Struct, frozen=True):
    """The ramp: load on every application (requests/s), pause and window after each addition, most applications."""

    rate_per_s: float
    settle_s: float
    window_s: float
    cap: int


class Settings(Struct, frozen=True):
    """All that ``x-testbed`` says; ``trials`` is the number of starts on each platform, ``work`` what the application
    does when it is asked once, if there is such."""

    trials: int
    ready: Ready
    load: Load
    slo: Slo
    density: Density
    work: Work | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured unless something else is asked for: work, of an application that is there to do that."""
        return ("start", "density", "utilisation") if self.work is None else ("start", "work")


_READY = ("service", "port", "path", "status", "body", "timeout_s", "timeout_vm_s")
_LOAD = ("service", "port", "method", "path", "rates_per_s", "duration_s", "warmup_s", "connections")
_SLO = ("p99_ms", "error_fraction")
_DENSITY = ("rate_per_s", "settle_s", "window_s", "cap")
_WORK = ("service", "port", "path", "timeout_s", "timeout_vm_s", "figures")
_KEYS = {"ready": _READY, "load": _LOAD, "slo": _SLO, "density": _DENSITY, "work": _WORK}
_SECTIONS = ("trials", *_KEYS)

_DAY_S = 86_400
MOST_TRIALS = 10_000
MOST_RATE_PER_S = 1_000_000
MOST_RATES = 100
# The generator works out when each is due before the first is sent.
MOST_REQUESTS = 5_000_000


def read_settings(value: Value, services: tuple[str, ...]) -> tuple[Settings, Settings]:
    """Return the settings, and those for ``--quick``, of an application with these ``services``."""
    sections = value.fields((*_SECTIONS, "quick"))
    quick = sections.get("quick")
    overrides = {} if quick is None or quick.is_null else quick.fields(_SECTIONS)
    full = _settings(value, sections, {}, services)
    return full, _shortened(_settings(value, sections, overrides, services), _given(overrides))


class _Section:
    """One section of x-testbed, each key of which ``quick`` may override."""

    def __init__(self, parent: Value, base: Mapping[str, Value], quick: Mapping[str, Value], name: str) -> None:
        self._parent = parent
        self._name = name
        self.is_there = False
        self._fields: dict[str, Value] = {}
        for sections in (base, quick):
            if name in sections and not sections[name].is_null:
                self._parent, self.is_there = sections[name], True
                self._fields |= self._parent.fields(_KEYS[name])

    def get(self, key: str) -> Value | None:
        """Return the value of a key, None when it is absent or empty."""
        value = self._fields.get(key)
        return None if value is None or value.is_null else value

    def needed(self, key: str, expected: str) -> Value:
        if not self.is_there:
            self._parent = require({}, self._name, self._parent, "at least its service and port")
            self.is_there = True
        return require(self._fields, key, self._parent, expected)

    def seconds(self, key: str, default: float, above: float | None = None) -> float:
        value = self.get(key)
        low = 0.0 if above is None else None
        return default if value is None else value.number("seconds", above=above, low=low, high=_DAY_S)

    def integer(self, key: str, default: int, low: int, high: int, unit: str) -> int:
        value = self.get(key)
        return default if value is None else value.integer(low, high, unit)

    def path(self, default: str) -> str:
        value = self.get("path")
        if value is None:
            return default
        path = value.text("a path such as /")
        if not re.fullmatch(r"/[!-~]{0,4095}", path):
            value.report(f"is {quote(path)}", "a path that begins with /, of at most 4096 characters, without blanks")
        return path


def _rate(value: Value) -> float:
    return value.number("requests per second", above=0, high=MOST_RATE_PER_S)


def _service(value: Value, names: tuple[str, ...]) -> str:
    name = value.text("the name of a service")
    if names and name not in names:
        value.report(f"{quote(name)} is no service of this file", f"one of {', '.join(names)}")
    return name


def _port(value: Value) -> int:
    return value.integer(1, 65535, "a TCP port")


def _settings(parent: Value, base: Mapping[str, Value], quick: Mapping[str, Value], names: tuple[str, ...]) -> Settings:
    """Return the settings from ``base``, overridden key by key by what ``quick`` says, with defaults for what neither
    does."""
    trials = {**base, **quick}.get("trials")
    ready = _ready(_Section(parent, base, quick, "ready"), names)
    return Settings(
        trials=10 if trials is None or trials.is_null else trials.integer(1, MOST_TRIALS, "trials"),
        ready=ready,
        load=_load(_Section(parent, base, quick, "load"), ready, names),
        slo=_slo(_Section(parent, base, quick, "slo")),
        density=_density(_Section(parent, base, quick, "density")),
        work=_work(_Section(parent, base, quick, "work"), ready, names),
    )


def _ready(section: _Section, names: tuple[str, ...]) -> Ready:
    body = section.get("body")
    service = section.needed("service", "the name of the service that is asked")
    port = section.needed("port", "the TCP port that it listens on")
    return Ready(
        service=_service(service, names),
        port=_port(port),
        path=section.path("/"),
        status=section.integer("status", 200, 100, 599, "an HTTP status"),
        body="" if body is None else body.text(),
        timeout_s=section.seconds("timeout_s", 30, above=0),
        timeout_vm_s=section.seconds("timeout_vm_s", 180, above=0),
    )


def _load(section: _Section, ready: Ready, names: tuple[str, ...]) -> Load:
    """Return the load; unless it says otherwise, it asks what the ready check asks."""
    service, port = section.get("service"), section.get("port")
    rates, duration_s = _rates(section.get("rates_per_s")), section.seconds("duration_s", 20, above=0)
    busiest = max(rates, default=0.0)
    if busiest * duration_s > MOST_REQUESTS:
        value = section.get("duration_s") or section.needed("rates_per_s", "")
        value.report(
            f"makes {busiest * duration_s:.12g} requests in all", f"at most {MOST_REQUESTS}: rate times seconds"
        )
    return Load(
        service=ready.service if service is None else _service(service, names),
        port=ready.port if port is None else _port(port),
        method=_method(section.get("method")),
        path=section.path(ready.path),
        rates_per_s=rates,
        duration_s=duration_s,
        warmup_s=section.seconds("warmup_s", 3),
        connections=section.integer("connections", 16, 1, 10_000, "connections"),
    )


def _rates(value: Value | None) -> tuple[float, ...]:
    if value is None:
        return (10.0, 25.0, 50.0, 100.0)
    rates = tuple(_rate(rate) for rate in value.items())
    if not 1 <= len(rates) <= MOST_RATES:
        value.report(f"has {len(rates) or 'no'} rates", f"a list of requests per second, at most {MOST_RATES}")
    elif len(set(rates)) < len(rates):
        value.report("has a rate twice", "a list of different rates")
    return tuple(rate for rate in rates if math.isfinite(rate))


def _method(value: Value | None) -> str:
    if value is None:
        return "GET"
    method = value.text("an HTTP method")
    if method not in _METHODS:
        value.report(f"is {quote(method)}", f"one of {', '.join(_METHODS)}")
    return method


def _slo(section: _Section) -> Slo:
    p99, errors = section.get("p99_ms"), section.get("error_fraction")
    return Slo(
        p99_ms=250.0 if p99 is None else p99.number("milliseconds", above=0, high=3_600_000),
        error_fraction=0.01 if errors is None else errors.number("a fraction of the requests", low=0, high=1),
    )


def _density(section: _Section) -> Density:
    rate = section.get("rate_per_s")
    return Density(
        rate_per_s=5.0 if rate is None else _rate(rate),
        settle_s=section.seconds("settle_s", 2),
        window_s=section.seconds("window_s", 5, above=0),
        cap=section.integer("cap", 24, 1, 10_000, "applications"),
    )


def _work(section: _Section, ready: Ready, names: tuple[str, ...]) -> Work | None:
    """Return the work, if the section is there; unless it says otherwise, who answers the ready check does it."""
    if not section.is_there:
        return None
    service, port = section.get("service"), section.get("port")
    return Work(
        service=ready.service if service is None else _service(service, names),
        port=ready.port if port is None else _port(port),
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

    load, density = settings.load, settings.density
    rates = load.rates_per_s if "load.rates_per_s" in given else load.rates_per_s[:1]
    return replace(
        settings,
        trials=int(least("trials", settings.trials, 2)),
        load=replace(
            load,
            rates_per_s=rates,
            duration_s=least("load.duration_s", load.duration_s, 4.0),
            warmup_s=least("load.warmup_s", load.warmup_s, 1.0),
            connections=int(least("load.connections", load.connections, 8)),
        ),
        density=replace(
            density,
            settle_s=least("density.settle_s", density.settle_s, 1.0),
            window_s=least("density.window_s", density.window_s, 2.0),
            cap=int(least("density.cap", density.cap, 2)),
        ),
    )
