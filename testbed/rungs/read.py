"""The rungs and their sources, read from testbed/rungs/data/ and checked: a file for each rung, whose name it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from runtime.errors import UsageError
from runtime.plan.constants import CAPABILITIES
from testbed.rungs.model import FEATURES, Cell, Check, History, Isolation, Network, Root, Rung, Side, Source
from testbed.rungs.statements import read_explained, read_source_id, read_statements
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, read_tree, require

FOLDER = Path(__file__).resolve().parent / "data"
SOURCES = "sources.yaml"
_FIRST_YEAR, _LAST_YEAR = 1950, 2100
_NAMESPACES = ("mount", "pid", "ipc", "uts", "network", "cgroup", "user", "time")
_LIMITS = ("memory", "cpus", "pids")
_WORDS: Mapping[str, Collection[str]] = {
    "root": get_args(Root),
    "network": get_args(Network),
    "system_calls": ("all", "default", "tight"),
    "devices": ("host", "nodes", "cgroup"),
}
_LISTS: Mapping[str, Collection[str]] = {"namespaces": _NAMESPACES, "limits": _LIMITS}
_SWITCHES = ("masks", "no_new_privileges", "landlock", "read_only_sysfs")
_CAPABILITY_WORDS = ("all", "default", "none")
# MiB: what a probe writes in vain has to be more (testbed.probes.canaries), and less than the memory of those attacked.
_LARGEST_QUOTA = 64


@cache
def read_history(folder: Path = FOLDER) -> History:
    """Return all rungs, by year, and their sources. Raises UsageError with every mistake in every file."""
    problems: list[str] = []
    sources: dict[str, Source] = {}
    rungs: list[Rung] = []
    for file in [folder / SOURCES, *sorted(path for path in folder.glob("*.yaml") if path.name != SOURCES)]:
        try:
            root = read_tree(file)
            if file.name == SOURCES:
                sources = _read_sources(root)
            else:
                rungs.append(_read_rung(root, file.stem, sources))
            root.problems.check()
        except UsageError as error:
            problems.append(error.message)
    if problems:
        raise UsageError("\n".join(problems))
    return History(tuple(sorted(rungs, key=lambda one: (one.year, one.name))), sources)


def find_rung(name: str, history: History | None = None) -> Rung:
    """Return a rung by its name. Raises UsageError for one that is not there."""
    rungs = (history or read_history()).rungs
    for rung in rungs:
        if rung.name == name:
            return rung
    raise UsageError(f"unknown rung {quote(name)}", f"one of {', '.join(rung.name for rung in rungs)}")


def _read_sources(root: Value) -> dict[str, Source]:
    sources = {}
    for name, value in root.entries().items():
        fields = value.fields(("title", "authors", "venue", "year", "url", "checked", "where"))
        texts = {key: require(fields, key, value, "text").text() for key in ("title", "authors", "venue", "where")}
        checked = _one_of(require(fields, "checked", value, "how it was looked up"), get_args(Check))
        url = fields["url"].text("an address") if "url" in fields else ""
        if url and not url.startswith(("https://", "http://")):
            fields["url"].report(f"is {quote(url)}", "an address that begins with https:// or http://")
        year = require(fields, "year", value, "a year").integer(_FIRST_YEAR, _LAST_YEAR, "a year")
        sources[name] = Source(name, year=year, url=url, checked=cast(Check, checked), **texts)
    return sources


def _read_rung(root: Value, name: str, sources: Mapping[str, Source]) -> Rung:
    fields = root.fields(tuple(get_type_hints(Rung)))
    texts = {key: require(fields, key, root, "text").text() for key in ("name", "title", "words")}
    if texts["name"] and texts["name"] != name:
        fields["name"].report(f"is {quote(texts['name'])}", f"the file's own name, {quote(name)}")
    side = _one_of(require(fields, "side", root, "a side"), get_args(Side))
    isolation = _read_isolation(fields["isolation"]) if "isolation" in fields else None
    platform = fields["platform"].text() if "platform" in fields else ""
    if isolation is not None and platform:
        fields["platform"].report("is there beside an isolation", "one of them: what it is made of, or what makes it")
    if isolation is not None and side == "machines":
        fields["isolation"].report("is one of a machine", "none: a machine is what its platform makes")
    return Rung(
        **texts,
        year=require(fields, "year", root, "a year").integer(_FIRST_YEAR, _LAST_YEAR, "a year"),
        side=cast(Side, side),
        cells=_read_cells(require(fields, "cells", root, "a cell for each feature"), sources),
        isolation=isolation,
        platform=platform,
        forbids=read_statements(fields, "forbids", sources),
        permits=read_statements(fields, "permits", sources),
        leaves=read_statements(fields, "leaves", sources),
        explains=read_explained(fields, sources),
        needs=fields["needs"].text() if "needs" in fields else "",
    )


def _one_of(value: Value, known: Collection[str]) -> str:
    word = value.text(f"one of {', '.join(known)}")
    if word and word not in known:
        value.report(f"is {quote(word)}", f"one of {', '.join(known)}")
    return word


def _some_of(value: Value, known: Collection[str]) -> tuple[str, ...]:
    words = []
    for item in value.items():
        word = _one_of(item, known)
        if word in words:
            item.report(f"is {quote(word)} a second time", "each once")
        words.append(word)
    return tuple(words)


def _read_isolation(value: Value) -> Isolation:
    fields = value.fields(tuple(get_type_hints(Isolation)))
    require(fields, "root", value, f"one of {', '.join(get_args(Root))}")
    read: dict[str, Any] = {key: _one_of(fields[key], known) for key, known in _WORDS.items() if key in fields}
    read |= {key: _some_of(fields[key], known) for key, known in _LISTS.items() if key in fields}
    read |= {key: fields[key].boolean() for key in _SWITCHES if key in fields}
    if "quota" in fields:
        read["quota"] = fields["quota"].integer(1, _LARGEST_QUOTA, "MiB")
    if "capabilities" in fields:
        given = fields["capabilities"]
        read["capabilities"] = _some_of(given, CAPABILITIES) if given.is_list else _one_of(given, _CAPABILITY_WORDS)
    isolation = Isolation(**{"root": "host", **read})
    if ("network" in isolation.namespaces) != (isolation.network == "stack"):
        value.report("has a network namespace without a stack of its own, or the other way round", "both or neither")
    return isolation


def _read_cells(value: Value, sources: Mapping[str, Source]) -> Mapping[str, Cell]:
    fields = value.fields(FEATURES, where="the matrix")
    cells = {}
    for feature in FEATURES:
        cell = require(fields, feature, value, "what it had of that")
        if cell.is_null:
            continue
        parts = cell.fields(("had", "source", "today"))
        source = read_source_id(require(parts, "source", cell, "the id of a source"), sources)
        had = require(parts, "had", cell, "text").text()
        cells[feature] = Cell(had, source, parts["today"].text() if "today" in parts else "")
    return cells
