"""Compose files merged as Compose does (Compose specification, "Merge", and compose-go's ``override`` package for what
it leaves open).

Mappings are merged key by key, lists appended, scalars replaced. Some keys have rules of their own: commands are
replaced; what can be written as a list or as a mapping is brought to one form; entries of a list that mean the same
thing (a variable's name, a mount's target) replace each other. ``!reset`` removes a key, ``!override`` replaces its
value as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.compose.ports import PortText, split_port
from testbed.compose.volumes import split_volume
from testbed.yamltree.nodes import NULL, Entry, Node, Scalar, Table, describe
from testbed.yamltree.nodes import Sequence as List
from testbed.yamltree.problems import Problems, cut
from testbed.yamltree.values import print_scalar

# Steps of merging in all; files whose aliases multiply would take more.
MOST_MERGES = 100_000

_REPLACED = ("command", "entrypoint", "healthcheck.test")
# Lists of NAME=value that may be mappings, and lists that may be one scalar.
_PAIRS = (
    *("environment", "labels", "annotations", "sysctls", "build.args", "build.labels", "build.additional_contexts"),
    *("deploy.labels", "extra_hosts", "build.extra_hosts"),
)
_SCALAR_OR_LIST = ("dns", "dns_search", "tmpfs", "env_file", "label_file")
_NAMES = ("depends_on", "networks", "models")
# Lists in which nothing is twice.
_UNIQUE = (
    *("cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "tmpfs", "expose", "links", "profiles", "external_links"),
    *("group_add", "security_opt", "build.tags", "build.platforms", "label_file"),
)


class Merger:
    """Merges trees; mistakes are noted. One of it serves all files of a scenario: what it does is bounded."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._steps = 0

    def merge_files(self, base: Entry, over: Entry) -> Entry:
        """Return the tree of a file with another one's merged into it."""
        return self._merge(base, over, ())

    def merge_services(self, base: Entry, over: Entry, name: str) -> Entry:
        """Return a service that extends another one."""
        return self._merge(base, over, ("services", name))

    def clean(self, entry: Entry) -> Entry:
        """Return a tree without what is marked to be reset."""
        return _unmark(entry, {})

    def _count(self, entry: Entry) -> None:
        self._steps += 1
        if self._steps > MOST_MERGES:
            raise UsageError(f"{entry.source.file}:{entry.line}: more than {MOST_MERGES} values to merge")

    def _merge(self, base: Entry, over: Entry, path: tuple[str, ...]) -> Entry:
        self._count(over)
        if over.node.directive == "override":
            return self.clean(over)
        if _is_null(over.node) and not isinstance(base.node, Scalar):
            return base
        key = _key_in_service(path)
        if key in _REPLACED:
            return self.clean(over)
        if (
            key == "logging"
            and _driver(base.node) != _driver(over.node)
            and ""
            not in (
                _driver(base.node),
                _driver(over.node),
            )
        ):
            return self.clean(over)
        first, second = _normalised(base, path), _normalised(over, path)
        if isinstance(second.node, Table) and isinstance(first.node, Table):
            return replace(second, node=self._merge_tables(first.node, second.node, path))
        if isinstance(second.node, List) and isinstance(first.node, List):
            items = (*first.node.items, *(self.clean(item) for item in second.node.items if not _is_reset(item)))
            for item in items:
                self._count(item)
            return replace(second, node=List(unique(items, path)))
        both_scalars = isinstance(first.node, Scalar) and isinstance(second.node, Scalar)
        if both_scalars or _is_null(first.node) or key.startswith("ulimits."):
            return self.clean(over)
        named = ".".join(map(cut, path))
        problem = f"is {describe(over.node)}, and {describe(base.node)} in {base.source.file.name}"
        self._problems.add(over.source.file, over.line, named, problem, "the same form in both files")
        return base

    def _merge_tables(self, base: Table, over: Table, path: tuple[str, ...]) -> Table:
        entries = dict(base.entries)
        for key, entry in over.entries.items():
            if _is_reset(entry):
                entries.pop(key, None)
            elif key not in entries or key.startswith("x-"):
                self._count(entry)
                entries[key] = self.clean(entry)
            else:
                entries[key] = self._merge(entries[key], entry, (*path, key))
        return Table(entries)


def unique(items: Iterable[Entry], path: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return a list's items, of which a later one takes the place of an earlier one that means the same thing."""
    key = _key_in_service(path)
    identify = _IDENTITIES.get(key)
    if identify is None:
        if key not in _UNIQUE and not key.endswith(".aliases"):
            return tuple(items)
        identify = _text
    kept: dict[object, Entry] = {}
    for index, item in enumerate(items):
        identity = identify(item.node)
        kept[(index,) if identity is None else identity] = item
    return tuple(kept.values())


def _unmark(entry: Entry, done: dict[int, Node]) -> Entry:
    node = entry.node
    if id(node) not in done:
        changed: Node = node
        if isinstance(node, Table):
            entries = {key: _unmark(item, done) for key, item in node.entries.items() if not _is_reset(item)}
            same = len(entries) == len(node.entries) and all(one is node.entries[key] for key, one in entries.items())
            changed = node if same and not node.directive else Table(entries)
        elif isinstance(node, List):
            items = tuple(_unmark(item, done) for item in node.items if not _is_reset(item))
            same = len(items) == len(node.items) and all(map(_same, items, node.items))
            changed = node if same and not node.directive else List(items)
        elif node.directive:
            changed = Scalar(node.text, node.kind)
        done[id(node)] = changed
    return entry if done[id(node)] is node else replace(entry, node=done[id(node)])


def _same(one: Entry, other: Entry) -> bool:
    return one is other


def _is_reset(entry: Entry) -> bool:
    return entry.node.directive == "reset"


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind == "null"


def _key_in_service(path: tuple[str, ...]) -> str:
    """Return a path below a service as ``build.args``, "" for any other."""
    return ".".join(path[2:]) if path[:1] == ("services",) else ""


def _driver(node: Node) -> str:
    entry = node.entries.get("driver") if isinstance(node, Table) else None
    return entry.node.text if entry is not None and isinstance(entry.node, Scalar) else ""


def _normalised(entry: Entry, path: tuple[str, ...]) -> Entry:
    """Return an entry in the one form that all its forms can be brought to."""
    key, node = _key_in_service(path), entry.node
    if key in _PAIRS or (path[:1] in (("networks",), ("volumes",)) and path[2:] == ("labels",)):
        return replace(entry, node=_pairs_table(node)) if isinstance(node, List) else entry
    if key in _NAMES and isinstance(node, List):
        return replace(entry, node=_names_table(node, key))
    if isinstance(node, Scalar) and node.kind != "null":
        if key == "build":
            return replace(entry, node=Table({"context": entry}))
        if key == "extends":
            return replace(entry, node=Table({"service": entry}))
        if key in _SCALAR_OR_LIST:
            return replace(entry, node=List((entry,)))
    return entry


def _pairs_table(node: List) -> Node:
    """Return a list of ``NAME=value`` as a mapping; a name alone has no value."""
    entries: dict[str, Entry] = {}
    for item in node.items:
        if not isinstance(item.node, Scalar):
            return node
        name, equals, value = print_scalar(item.node).partition("=")
        if not equals and ":" in name:  # extra_hosts
            name, equals, value = name.partition(":")
        entries[name] = replace(item, node=Scalar(value, "str", item.node.directive) if equals else NULL)
    return Table(entries)


def _names_table(node: List, key: str) -> Node:
    entries: dict[str, Entry] = {}
    for item in node.items:
        if not isinstance(item.node, Scalar):
            return node
        started = {"condition": replace(item, node=Scalar("service_started"))}
        entries[item.node.text] = replace(item, node=Table(started) if key == "depends_on" else NULL)
    return Table(entries)


def _text(node: Node) -> str | None:
    return node.text if isinstance(node, Scalar) else None


def _field(node: Node, *names: str) -> str:
    for name in names:
        entry = node.entries.get(name) if isinstance(node, Table) else None
        if entry is not None and isinstance(entry.node, Scalar) and entry.node.kind != "null":
            return entry.node.text
    return ""


def _target(node: Node) -> str | None:
    if isinstance(node, Scalar):
        return split_volume(node.text).target
    return _field(node, "target") or None


def _granted(folder: str) -> Callable[[Node], str | None]:
    def identify(node: Node) -> str | None:
        if isinstance(node, Scalar):
            return f"{folder}/{node.text}"
        target = _field(node, "target")
        return target if target.startswith("/") else f"{folder}/{target or _field(node, 'source')}"

    return identify


def _port(node: Node) -> object:
    if isinstance(node, Scalar):
        return split_port(node.text) or node.text
    published = _field(node, "published")
    return PortText(_field(node, "host_ip"), published, _field(node, "target"), _field(node, "protocol") or "tcp")


def _path(node: Node) -> str | None:
    return node.text if isinstance(node, Scalar) else _field(node, "path") or None


_IDENTITIES: Mapping[str, Callable[[Node], object]] = MappingProxyType(
    {
        "volumes": _target,
        "devices": _target,
        "secrets": _granted("/run/secrets"),
        "configs": _granted(""),
        "ports": _port,
        "env_file": _path,
    }
)
