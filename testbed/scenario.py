"""A scenario: an application's compose.yaml with measurement settings under ``x-testbed``, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from runtime.errors import UsageError
from testbed.compose import Service, read_services
from testbed.yamltree import Value, read_tree, required

__all__ = ["Density", "Load", "Ready", "Scenario", "Service", "Settings", "Slo", "known_scenarios", "load"]

# Compose specification, "Compose file": the preferred names first.
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
# Compose specification, "Name top-level element"; it is also the first part of image references.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
_TOP_INSTEAD = {
    "networks": "none: each application has a network of its own, where services find each other by name",
    "volumes": "none: data lives and dies with the instance",
}


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
    """All that ``x-testbed`` says; ``trials`` is the number of starts on each platform."""

    trials: int
    ready: Ready
    load: Load
    slo: Slo
    density: Density


class Scenario(Struct, frozen=True):
    """A scenario. ``services`` come after what they depend on; ``quick`` is ``settings`` with its quick overrides."""

    name: str
    folder: Path
    services: tuple[Service, ...]
    settings: Settings
    quick: Settings

    def chosen(self, quick: bool) -> Settings:
        return self.quick if quick else self.settings


def known_scenarios(scenarios_folder: Path) -> tuple[str, ...]:
    """The names of the folders that hold a compose file."""
    if not scenarios_folder.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in scenarios_folder.iterdir() if _compose_file(folder)))


def load(name_or_path: str, scenarios_folder: Path) -> Scenario:
    """The scenario of that name below ``scenarios_folder``, or in the folder (or compose file) at that path.

    Raises UsageError: for malformed input ``file:line: key: what is wrong; what is expected``, for an unknown name
    the known ones.
    """
    file = _locate(name_or_path, scenarios_folder)
    root = read_tree(file)
    fields = root.fields(("name", "version", "services", "x-testbed"), _TOP_INSTEAD)
    services = read_services(required(fields, "services", root, "the application's services"))
    settings = required(fields, "x-testbed", root, "how to measure: ready, load, slo, density, trials")
    names = tuple(service.name for service in services)
    sections = settings.fields((*_SECTIONS, "quick"))
    quick = sections["quick"].fields(_SECTIONS) if "quick" in sections else {}
    return Scenario(
        name=_name(fields.get("name"), file),
        folder=file.parent,
        services=services,
        settings=_settings(settings, sections, {}, names),
        quick=_settings(settings, sections, quick, names),
    )


def _compose_file(folder: Path) -> Path | None:
    return next((folder / name for name in COMPOSE_FILES if (folder / name).is_file()), None)


def _locate(name_or_path: str, scenarios_folder: Path) -> Path:
    is_path = "/" in name_or_path or name_or_path in (".", "..")
    folder = Path(name_or_path) if is_path else scenarios_folder / name_or_path
    if is_path and folder.is_file():
        return folder
    file = _compose_file(folder) if name_or_path else None
    if file is not None:
        return file
    known = ", ".join(known_scenarios(scenarios_folder)) or f"none in {scenarios_folder}"
    if not is_path:
        raise UsageError(f"unknown scenario {name_or_path!r}", f"known scenarios: {known}; or give a path with a slash")
    problem = "has no compose.yaml" if folder.is_dir() else "does not exist"
    raise UsageError(f"scenario {name_or_path}: the folder {problem}", f"known scenarios: {known}")


def _name(value: Value | None, file: Path) -> str:
    if value is None:
        # As Compose makes a project's name from its folder: small letters, and no others than it allows.
        return re.sub(r"[^a-z0-9_-]", "", file.resolve().parent.name.lower()).lstrip("_-") or "scenario"
    name = value.text()
    if not _NAME.fullmatch(name):
        raise value.error(f"is {name!r}", "small letters, digits, '-' and '_', beginning with a letter or digit")
    return name


_READY = ("service", "port", "path", "status", "body", "timeout_s", "timeout_vm_s")
_LOAD = ("service", "port", "method", "path", "rates_per_s", "duration_s", "warmup_s", "connections")
_SLO = ("p99_ms", "error_fraction")
_DENSITY = ("rate_per_s", "settle_s", "window_s", "cap")
_SECTIONS = ("trials", "ready", "load", "slo", "density")


class _Section:
    """One section of x-testbed, each key of which ``quick`` may override."""

    def __init__(self, parent: Value, base: Mapping[str, Value], quick: Mapping[str, Value], name: str) -> None:
        keys = {"ready": _READY, "load": _LOAD, "slo": _SLO, "density": _DENSITY}[name]
        self._place = required({**quick, **base}, name, parent, f"a mapping with {', '.join(keys)}")
        self._fields = base[name].fields(keys) if name in base else {}
        if name in quick:
            self._fields |= quick[name].fields(keys)

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def get(self, key: str, expected: str = "a value") -> Value:
        return required(self._fields, key, self._place, expected)

    def service(self, names: tuple[str, ...]) -> str:
        value = self.get("service", "the name of a service")
        name = value.text("the name of a service")
        if name not in names:
            raise value.error(f"{name!r} is no service of this file", f"one of {', '.join(names)}")
        return name

    def path(self) -> str:
        value = self.get("path", "a path such as /")
        path = value.text("a path such as /")
        if not re.fullmatch(r"/[!-~]*", path):
            raise value.error(f"is {path!r}", "a path that begins with / and has no blanks")
        return path


def _settings(parent: Value, base: Mapping[str, Value], quick: Mapping[str, Value], names: tuple[str, ...]) -> Settings:
    """The settings from ``base``, overridden key by key by what ``quick`` says."""
    trials = required({**base, **quick}, "trials", parent, "a number of trials")
    return Settings(
        trials=trials.integer(1, 10_000),
        ready=_ready(_Section(parent, base, quick, "ready"), names),
        load=_load(_Section(parent, base, quick, "load"), names),
        slo=_slo(_Section(parent, base, quick, "slo")),
        density=_density(_Section(parent, base, quick, "density")),
    )


def _ready(section: _Section, names: tuple[str, ...]) -> Ready:
    return Ready(
        service=section.service(names),
        port=section.get("port", "a TCP port").integer(1, 65535),
        path=section.path(),
        status=section.get("status").integer(100, 599) if "status" in section else 200,
        body=section.get("body").text() if "body" in section else "",
        timeout_s=section.get("timeout_s", "seconds").number(above=0),
        timeout_vm_s=section.get("timeout_vm_s", "seconds").number(above=0),
    )


def _load(section: _Section, names: tuple[str, ...]) -> Load:
    rates = section.get("rates_per_s", "a list of requests per second")
    rates_per_s = tuple(rate.number(above=0) for rate in rates.items())
    if not rates_per_s or len(set(rates_per_s)) < len(rates_per_s):
        raise rates.error("has a rate twice" if rates_per_s else "has no rate", "a list of different rates")
    return Load(
        service=section.service(names),
        port=section.get("port", "a TCP port").integer(1, 65535),
        method=_method(section),
        path=section.path(),
        rates_per_s=rates_per_s,
        duration_s=section.get("duration_s", "seconds").number(above=0),
        warmup_s=section.get("warmup_s").number(low=0) if "warmup_s" in section else 0.0,
        connections=section.get("connections", "a number of connections").integer(1, 10_000),
    )


def _method(section: _Section) -> str:
    if "method" not in section:
        return "GET"
    value = section.get("method")
    method = value.text("an HTTP method")
    if method not in _METHODS:
        raise value.error(f"is {method!r}", f"one of {', '.join(_METHODS)}")
    return method


def _slo(section: _Section) -> Slo:
    return Slo(
        p99_ms=section.get("p99_ms", "milliseconds").number(above=0),
        error_fraction=section.get("error_fraction", "a fraction from 0 to 1").number(low=0, high=1),
    )


def _density(section: _Section) -> Density:
    return Density(
        rate_per_s=section.get("rate_per_s", "requests per second").number(above=0),
        settle_s=section.get("settle_s").number(low=0) if "settle_s" in section else 0.0,
        window_s=section.get("window_s", "seconds").number(above=0),
        cap=section.get("cap", "a number of applications").integer(1, 10_000),
    )
