"""A scenario: an application's compose files with measurement settings under ``x-testbed``, as frozen data.

The settings are in a compose file, or in one beside it, or nowhere: then an application is asked at the port that it
publishes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.files import check_inside
from testbed.compose.application import NOTHING_ASKED, Asked, load_files, read_application
from testbed.compose.model import Application, Service
from testbed.scenario.defaults import Front, describe_front, find_front
from testbed.scenario.sections import ANY
from testbed.scenario.settings import Density, Load, Ready, Settings, Slo, read_settings
from testbed.yamltree.nodes import Source, Table, parse_documents, read_documents
from testbed.yamltree.problems import Problems, quote
from testbed.yamltree.values import Value

__all__ = [
    "NOTHING_ASKED", "Application", "Asked", "Density", "Load", "Ready", "Scenario", "Service", "Settings", "Slo",
    "list_scenarios", "load",
]  # fmt: skip

# Compose specification, "Compose file": the preferred names first.
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
# What Compose merges into the first, unasked.
OVERRIDE_FILES = (
    *("compose.override.yaml", "compose.override.yml"),
    *("docker-compose.override.yaml", "docker-compose.override.yml"),
)
SETTINGS = "x-testbed"
_MOST_MISSING = 10
# Compose specification, "Name top-level element"; it is also the first part of image references.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class Scenario(Struct, frozen=True):
    """A scenario. ``services`` come after what they depend on; ``quick`` is ``settings`` with its quick overrides.

    ``application`` has what services share, and notes for the user; ``files`` are those that were named, the first one
    in ``folder``. An application whose files name no port has a ready check of no service: it cannot be measured.
    """

    name: str
    folder: Path
    services: tuple[Service, ...]
    settings: Settings
    quick: Settings
    application: Application = Application(())
    files: tuple[Path, ...] = ()

    def chosen(self, quick: bool) -> Settings:
        return self.quick if quick else self.settings

    @property
    def is_plain(self) -> bool:
        """Whether its folder alone says what it is: in one compose file, found by its name, without variables."""
        found = _compose_file(self.folder)
        return self.files == (found,) and not self.application.variables


def list_scenarios(scenarios_folder: Path) -> tuple[str, ...]:
    """Return the names of the folders that hold a compose file."""
    if not scenarios_folder.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in scenarios_folder.iterdir() if _compose_file(folder)))


def load(
    name_or_path: str,
    scenarios_folder: Path,
    asked: Asked = NOTHING_ASKED,
    environment: Mapping[str, str] = os.environ,
) -> Scenario:
    """Return the scenario of that name below ``scenarios_folder``, or of the folder or compose file at that path.

    ``environment`` has the values of variables, before those in ``.env``. Raises UsageError: for malformed input a line
    ``file:line: key: what is wrong; what is expected`` for each mistake, for an unknown name the known ones.
    """
    files = locate(name_or_path, scenarios_folder, asked)
    problems = Problems()
    loaded = load_files(files, asked, environment, problems)
    application = read_application(loaded)
    fields = loaded.root.entries()
    given = _read_beside(Path(asked.settings), problems) if asked.settings else fields.get(SETTINGS)
    services, notes = application.services, application.notes
    if given is not None and not given.is_null:
        full, quick = read_settings(given, tuple(service.name for service in services))
    else:
        front = find_front(services)
        full, quick = _make_settings(loaded.root, front or Front("", 1, "/", ""))
        services = tuple(replace(service, ports=_awaited(service, front)) for service in services)
        notes = (*notes, f"no {SETTINGS}: {describe_front(front)}")
    if len(files) > 1:
        notes = (f"merged: {', '.join(file.name for file in files)}", *notes)
    name = _name(fields.get("name"), files[0])
    missing = ", ".join(loaded.missing[:_MOST_MISSING])
    problems.check(f"these variables have no value here: {missing}" if missing else "")
    application = replace(application, services=services, notes=notes)
    return Scenario(name, files[0].parent, services, full, quick, application, files)


def locate(name_or_path: str, scenarios_folder: Path, asked: Asked = NOTHING_ASKED) -> tuple[Path, ...]:
    """Return the compose files of a scenario in the order in which they are merged. Raises UsageError."""
    is_path = "/" in name_or_path or name_or_path in (".", "..") or name_or_path.endswith((".yaml", ".yml"))
    folder = Path(name_or_path) if is_path else scenarios_folder / name_or_path
    further = tuple(Path(name) for name in asked.files)
    if is_path and os.path.isfile(folder):
        return (folder, *further)
    file = _compose_file(folder) if name_or_path else None
    if file is not None:
        check_inside(file, file.parent)
        return (file, *(further or _overrides(file)))
    names = ", ".join(list_scenarios(scenarios_folder)) or f"none in {scenarios_folder}"
    if not is_path:
        what = f"unknown scenario {quote(name_or_path)}"
        raise UsageError(what, f"known scenarios: {names}; or give a path with a slash")
    problem = "has no compose.yaml" if os.path.isdir(folder) else "does not exist"
    raise UsageError(f"scenario {name_or_path}: the folder {problem}", f"known scenarios: {names}")


def _compose_file(folder: Path) -> Path | None:
    return next((folder / name for name in COMPOSE_FILES if os.path.isfile(folder / name)), None)


def _overrides(file: Path) -> tuple[Path, ...]:
    """Return the file that Compose merges into the one that was found in a folder."""
    found = next((file.with_name(name) for name in OVERRIDE_FILES if os.path.isfile(file.with_name(name))), None)
    if found is None:
        return ()
    check_inside(found, found.parent)
    return (found,)


def _read_beside(file: Path, problems: Problems) -> Value:
    """Return the settings in a file of their own: below ``x-testbed``, or all that is in it."""
    problems.open(file)
    documents = read_documents(Source(file, file.parent), problems)
    if len(documents) != 1:
        raise UsageError(f"{file}:1: {len(documents) or 'no'} documents", f"one with {SETTINGS}, as in a compose file")
    root = documents[0]
    if isinstance(root.node, Table) and SETTINGS in root.node.entries:
        return Value(problems, SETTINGS, root.node.entries[SETTINGS])
    return Value(problems, SETTINGS, root)


def _make_settings(root: Value, front: Front) -> tuple[Settings, Settings]:
    """Return the settings of an application that has none, full and quick: any answer that is no failure counts."""
    path = front.path or "/"
    ready = {"service": front.service, "port": front.port, "path": path, "status": ANY}
    text = msgspec.json.encode({"ready": ready, "load": {"requests": [{"path": path, "status": ANY}]}}).decode()
    (document,) = parse_documents(text, root.source, root.problems)
    full, quick = read_settings(Value(root.problems, SETTINGS, document), ())
    if front.path:
        return full, quick
    return replace(full, ready=replace(full.ready, path="")), replace(quick, ready=replace(quick.ready, path=""))


def _awaited(service: Service, front: Front | None) -> tuple[int, ...]:
    """Return the ports to wait for: of strangers, not every port that a file names is ever open."""
    return (front.port,) if front is not None and service.name == front.service else ()


def _name(value: Value | None, file: Path) -> str:
    if value is None or value.is_null:
        # As Compose makes a project's name from its folder: small letters, and no others than it allows.
        folder = Path(os.path.realpath(file)).parent.name.lower()
        return re.sub(r"[^a-z0-9_-]", "", folder).lstrip("_-")[:40] or "scenario"
    name = value.text()
    if not NAME.fullmatch(name):
        value.report(f"is {quote(name)}", "at most 40 of a to z, 0 to 9, '-' and '_', a letter or digit first")
    return name
