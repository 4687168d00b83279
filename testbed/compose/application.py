"""An application read from compose files: the services of the chosen profiles, in the order in which they can start,
and what they share.

All mistakes of all files are noted; whoever calls raises them at once.
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.files import check_inside
from testbed.compose import keys
from testbed.compose.forms import read_texts
from testbed.compose.keys import WHERE, Keys, Notes
from testbed.compose.loading import MOST_SERVICES, Loader, list_environment_files, read_defaults
from testbed.compose.model import Application, Content, Mount, Network, Service, Volume
from testbed.compose.mounts import resolve_path
from testbed.compose.networking import SERVICE, SHARED
from testbed.compose.services import Named, list_lenders, read_service
from testbed.compose.sharing import report_missing, settle_sharing
from testbed.yamltree.problems import Problems, quote
from testbed.yamltree.values import Value, require

# Compose specification, "Services top-level elements"; and a service's name is also its host name.
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}")
_MOST_NAMES = 20  # of variables, in a note


class Asked(Struct, frozen=True):
    """What was asked for of compose files: further ``files`` to merge in their order, the ``profiles`` that are on,
    files of variables in place of ``.env``, and a file that says how the application is measured ("" for none)."""

    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    settings: str = ""


NOTHING_ASKED = Asked()


class Loaded(Struct, frozen=True):
    """The merged tree of some compose files, and what it took from the environment."""

    root: Value
    profiles: tuple[str, ...]
    variables: Mapping[str, str]
    missing: tuple[str, ...]


def load_files(files: Sequence[Path], asked: Asked, environment: Mapping[str, str], problems: Problems) -> Loaded:
    """Return the merged tree of compose files, of which the first one's folder is the project's.

    ``environment`` comes before the variables in ``.env``. Raises UsageError for what cannot be read.
    """
    folder = files[0].parent
    env_files = [Path(name) for name in asked.env_files] or list_environment_files(folder)
    for file in env_files if not asked.env_files else []:
        check_inside(file, folder)
    variables = ChainMap(dict(environment), read_defaults(env_files, environment))
    loader = Loader(problems)
    root = loader.load(files, folder, variables)
    wanted = [one.strip() for one in variables.get("COMPOSE_PROFILES", "").split(",")]
    profiles = asked.profiles or tuple(one for one in wanted if one)
    return Loaded(Value(problems, "", root), profiles, loader.used, tuple(loader.missing))


def read_application(loaded: Loaded) -> Application:
    """Return what a tree means; whatever is malformed, unsupported, missing, unknown or cyclic is noted."""
    root, notes = loaded.root, Notes()
    fields = keys.TOP.read(root, notes, "", where=WHERE)
    networks = _read_section(fields, "networks")
    volumes = _read_section(fields, "volumes")
    secrets, configs = _read_section(fields, "secrets"), _read_section(fields, "configs")
    named = Named(networks, volumes, secrets, configs)
    services = _read_services(require(fields, "services", root, "the application's services"), loaded, named, notes)
    if loaded.missing:
        notes.say(f"variables without a value, taken as empty: {', '.join(loaded.missing[:_MOST_NAMES])}")
    if loaded.variables:
        notes.say(f"taken from the environment or .env: {', '.join(sorted(loaded.variables)[:_MOST_NAMES])}")
    return Application(
        services=services,
        volumes=tuple(_read_volume(name, one, notes) for name, one in volumes.items()),
        networks=tuple(_read_network(name, one, notes) for name, one in networks.items()),
        secrets=_read_contents(secrets, keys.SECRET, services, "secrets", notes),
        configs=_read_contents(configs, keys.CONFIG, services, "configs", notes),
        notes=notes.list_lines(),
        variables=tuple(sorted(loaded.variables.items())),
    )


def _read_section(fields: Mapping[str, Value], key: str) -> dict[str, Value]:
    if key not in fields or fields[key].is_null:
        return {}
    return {name: entry for name, entry in fields[key].entries().items() if not name.startswith("x-")}


def _read_services(value: Value, loaded: Loaded, named: Named, notes: Notes) -> tuple[Service, ...]:
    entries = {key: entry for key, entry in value.entries().items() if not key.startswith("x-")}
    if not 1 <= len(entries) <= MOST_SERVICES:
        value.report(f"has {len(entries) or 'no'} services", f"one service at least, at most {MOST_SERVICES}")
        return ()
    for name, entry in entries.items():
        if not _SERVICE_NAME.fullmatch(name):
            entry.report(f"{quote(name)} is no service name", "letters, digits, '.', '_', '-', at most 63")
    off = {name for name, entry in entries.items() if not _is_on(entry, loaded.profiles)}
    if off:
        notes.say(f"left out, as their profiles are not on (--profile): {', '.join(sorted(off))}")
    on = {name: entry for name, entry in entries.items() if name not in off}
    services = {name: read_service(name, entry, named, notes) for name, entry in on.items()}
    if not on:
        value.report("has services of profiles only, and none is on", "--profile NAME")
    services = {name: _with_lent(service, services, on[name]) for name, service in services.items()}
    return _order(settle_sharing(services, entries, notes), on, off)


def _is_on(entry: Value, profiles: Collection[str]) -> bool:
    """Return whether a service is started: it has no profile, or one that is on."""
    field = entry.entries().get("profiles") if entry.is_mapping else None
    own = read_texts(field) if field is not None else ()
    return not own or "*" in profiles or not set(own).isdisjoint(profiles)


def _with_lent(service: Service, services: Mapping[str, Service], entry: Value) -> Service:
    """Return a service with the mounts of those that ``volumes_from`` names."""
    field = entry.entries().get("volumes_from") if entry.is_mapping else None
    if field is None or field.is_null:
        return service
    mounts: dict[str, Mount] = {}
    for name, read_only in list_lenders(field):
        for mount in services[name].mounts if name in services else ():
            mounts[mount.target] = replace(mount, read_only=mount.read_only or read_only)
    return replace(service, mounts=tuple({**mounts, **{one.target: one for one in service.mounts}}.values()))


def _order(services: Mapping[str, Service], entries: Mapping[str, Value], off: Collection[str]) -> tuple[Service, ...]:
    """Order services depth first, so that dependencies come first; a cycle is a mistake that shows it."""
    done: dict[str, Service] = {}

    def visit(name: str, chain: Sequence[str]) -> None:
        if name in chain:
            cycle = " -> ".join((*chain[chain.index(name) :], name))
            where = _find_reason(entries[chain[-1]], name)
            where.report(f"is a cycle: {cycle}", "services that can be started in order")
            return
        if name in done:
            return
        for needed in services[name].depends_on:
            if needed.service in services:
                visit(needed.service, (*chain, name))
            elif needed.required:
                report_missing(_find_reason(entries[name], needed.service), needed.service, services, off)
        kept = tuple(one for one in services[name].depends_on if one.service in services)
        done[name] = replace(services[name], depends_on=kept)

    for name in services:
        visit(name, ())
    return tuple(done.values())


def _find_reason(entry: Value, needed: str) -> Value:
    """Return the value by which a service, at ``entry``, needs another."""
    keys_of_it = entry.entries()
    implied = [keys_of_it[key] for key in ("depends_on", "links", "volumes_from", *SHARED) if key in keys_of_it]
    return next((one for one in implied if _is_named(one, needed)), implied[0] if implied else entry)


def _is_named(value: Value, service: str) -> bool:
    if value.is_mapping:
        return service in value.entries()
    words = [item.text().partition(":")[0] for item in value.items()] if value.is_list else []
    return service in words or (value.is_text and value.text() == f"{SERVICE}{service}")


def _is_external(fields: Mapping[str, Value]) -> bool:
    """Return whether something is said to be there before: ``external: true``, or with a name below it."""
    value = fields.get("external")
    return value is not None and not value.is_null and (value.is_mapping or value.boolean())


def _read_volume(name: str, value: Value, notes: Notes) -> Volume:
    if value.is_null:
        return Volume(name)
    fields = keys.VOLUME.read(value, notes, name, "volumes.")
    if _is_external(fields):
        notes.say(f"volume {name}: external, and made here, empty")
        return Volume(name)
    driver = fields["driver"].text("a driver") if "driver" in fields else "local"
    if driver not in ("local", "default"):
        fields["driver"].report(f"is {quote(driver)}", "local: there are no other drivers")
    options = fields["driver_opts"].entries() if "driver_opts" in fields else {}
    texts = {key: one.printed() for key, one in options.items() if not one.is_null}
    if "device" not in texts or texts.get("type", "none") == "tmpfs":
        return Volume(name)
    if "bind" not in texts.get("o", "").split(","):
        fields["driver_opts"].report("mounts something else than a directory", "o: bind with a device, or type: tmpfs")
        return Volume(name)
    return Volume(name, resolve_path(value.source, texts["device"]))


def _read_network(name: str, value: Value, notes: Notes) -> Network:
    if value.is_null:
        return Network(name)
    fields = keys.NETWORK.read(value, notes, name, "networks.")
    if _is_external(fields):
        notes.say(f"network {name}: external, and made here")
    return Network(name, internal="internal" in fields and fields["internal"].boolean())


def _read_contents(
    section: Mapping[str, Value], known: Keys, services: Sequence[Service], kind: str, notes: Notes
) -> tuple[Content, ...]:
    """Return secrets or configs; only of those that a service uses is it asked what is in them."""
    used = {one.source for service in services for one in (service.secrets if kind == "secrets" else service.configs)}
    if kind == "secrets":
        used |= {one.source for service in services if service.build is not None for one in service.build.secrets}
    contents = []
    for name, value in section.items():
        if value.is_null:
            value.report("is empty", "file, environment or content")
            continue
        fields = known.read(value, notes, name, f"{kind}.")
        if name in used:
            contents.append(_read_content(name, value, fields))
    return tuple(contents)


def _read_content(name: str, value: Value, fields: Mapping[str, Value]) -> Content:
    if "file" in fields:
        path = resolve_path(value.source, fields["file"].text("a file"))
        if not os.path.isfile(path):
            fields["file"].report(f"there is no file {quote(fields['file'].text())}", "a file beside this one")
        return Content(name, path)
    if "content" in fields:
        return Content(name, text=fields["content"].printed())
    if "environment" in fields:
        variable = fields["environment"].text("a variable's name")
        text = value.source.variables.get(variable)
        if text is None:
            fields["environment"].report(f"{quote(variable)} is no variable here", "a value for it, or file")
        return Content(name, text=text or "")
    external = " is external, of which this host has none" if _is_external(fields) else " has no content"
    value.report(external.strip(), "file, environment or content")
    return Content(name)
