"""A scenario: an application's compose.yaml with measurement settings under ``x-testbed``, as frozen data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from runtime.errors import UsageError
from runtime.files import check_inside
from testbed.scenario.compose import Service, read_services
from testbed.scenario.settings import Density, Load, Ready, Settings, Slo, read_settings
from testbed.scenario.yamltree import Value, quote, read_tree, require

__all__ = ["Density", "Load", "Ready", "Scenario", "Service", "Settings", "Slo", "list_scenarios", "load"]

# Compose specification, "Compose file": the preferred names first.
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
# What `docker compose` would merge into the first, unasked.
OVERRIDE_FILES = (
    *("compose.override.yaml", "compose.override.yml"),
    *("docker-compose.override.yaml", "docker-compose.override.yml"),
)
# Compose specification, "Name top-level element"; it is also the first part of image references.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TOP_INSTEAD = {
    "networks": "none: each application has a network of its own, where services find each other by name",
    "volumes": "none: data lives and dies with the instance",
}


class Scenario(Struct, frozen=True):
    """A scenario. ``services`` come after what they depend on; ``quick`` is ``settings`` with its quick overrides."""

    name: str
    folder: Path
    services: tuple[Service, ...]
    settings: Settings
    quick: Settings

    def chosen(self, quick: bool) -> Settings:
        return self.quick if quick else self.settings


def list_scenarios(scenarios_folder: Path) -> tuple[str, ...]:
    """Return the names of the folders that hold a compose file."""
    if not scenarios_folder.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in scenarios_folder.iterdir() if _compose_file(folder)))


def load(name_or_path: str, scenarios_folder: Path) -> Scenario:
    """Return the scenario of that name below ``scenarios_folder``, or in the folder (or compose file) at that path.

    Raises UsageError: for malformed input a line ``file:line: key: what is wrong; what is expected`` for each mistake,
    for an unknown name the known ones.
    """
    file = _locate(name_or_path, scenarios_folder)
    root = read_tree(file)
    fields = root.fields(("name", "version", "services", "x-testbed"), _TOP_INSTEAD)
    services = read_services(require(fields, "services", root, "the application's services"))
    testbed = require(fields, "x-testbed", root, "how to measure: at least ready, with service and port")
    settings, quick = read_settings(testbed, tuple(service.name for service in services))
    scenario = Scenario(_name(fields.get("name"), file), file.parent, services, settings, quick)
    root.problems.check()
    return scenario


def _compose_file(folder: Path) -> Path | None:
    return next((folder / name for name in COMPOSE_FILES if os.path.isfile(folder / name)), None)


def _locate(name_or_path: str, scenarios_folder: Path) -> Path:
    is_path = "/" in name_or_path or name_or_path in (".", "..")
    folder = Path(name_or_path) if is_path else scenarios_folder / name_or_path
    if is_path and os.path.isfile(folder):
        return folder
    file = _compose_file(folder) if name_or_path else None
    if file is not None:
        _check_alone(file)
        return file
    names = ", ".join(list_scenarios(scenarios_folder)) or f"none in {scenarios_folder}"
    if not is_path:
        what = f"unknown scenario {quote(name_or_path)}"
        raise UsageError(what, f"known scenarios: {names}; or give a path with a slash")
    problem = "has no compose.yaml" if os.path.isdir(folder) else "does not exist"
    raise UsageError(f"scenario {name_or_path}: the folder {problem}", f"known scenarios: {names}")


def _check_alone(file: Path) -> None:
    """Check that the compose file that was found in a folder is all that Compose would read there."""
    check_inside(file, file.parent)
    for name in OVERRIDE_FILES:
        if os.path.lexists(file.with_name(name)):
            what = f"{file.with_name(name)}: docker compose merges this into {file.name}; the testbed measures one file"
            without = f"--scenario {file.absolute()} leaves it out"
            raise UsageError(what, f"put what is to be measured into {file.name}; {without}")


def _name(value: Value | None, file: Path) -> str:
    if value is None:
        # As Compose makes a project's name from its folder: small letters, and no others than it allows.
        folder = Path(os.path.realpath(file)).parent.name.lower()
        return re.sub(r"[^a-z0-9_-]", "", folder).lstrip("_-")[:40] or "scenario"
    name = value.text()
    if not NAME.fullmatch(name):
        value.report(f"is {quote(name)}", "at most 40 of a to z, 0 to 9, '-' and '_', a letter or digit first")
    return name
