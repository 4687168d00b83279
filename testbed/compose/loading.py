"""Compose files loaded into one tree: interpolated, with what they extend and include, and merged in their order.

The order is compose-go's: each document is interpolated, its services' ``extends`` are applied, what it includes is
added, and then it is merged into what came before.
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.files import check_inside
from testbed.compose import keys
from testbed.compose.dotenv import read_variables
from testbed.compose.forms import read_texts
from testbed.compose.interpolation import Interpolator, interpolate_tree
from testbed.compose.merging import Merger
from testbed.compose.mounts import resolve_path
from testbed.yamltree.nodes import NULL, Entry, Scalar, Source, Table, read_documents
from testbed.yamltree.problems import Problems, quote
from testbed.yamltree.values import Value, require

# More than one host can run, and more than a table of them can show.
MOST_SERVICES = 100
MOST_FILES = 100
DEEPEST_CHAIN = 50
ENVIRONMENT_FILE = ".env"
_SHARED = ("services", "volumes", "networks", "secrets", "configs")
_YAML = (".yaml", ".yml", ".json")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*:.*|git@.*", re.DOTALL)


class Loader:
    """Loads the files of one application; mistakes are noted in ``problems``, variables in ``used`` and ``missing``."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.used: dict[str, str] = {}
        self.missing: dict[str, None] = {}
        self._merger = Merger(problems)
        self._opened = 0
        self._extended: dict[tuple[Path, Path], Entry] = {}

    def load(
        self, files: Sequence[Path], folder: Path, variables: Mapping[str, str], including: tuple[Path, ...] = ()
    ) -> Entry:
        """Return the tree of these files, whose paths start from ``folder``; ``including`` are those that include them.

        Raises UsageError for what cannot be read as YAML.
        """
        root: Entry | None = None
        for file in files:
            for document in self._read(file, folder, variables):
                with_extends = self._apply_extends(document, root)
                complete = self._apply_includes(with_extends, (*including, file))
                root = self._merger.clean(complete) if root is None else self._merger.merge_files(root, complete)
        assert root is not None
        return root

    def _read(self, file: Path, folder: Path, variables: Mapping[str, str]) -> list[Entry]:
        """Return a file's documents with their variables replaced: mappings, one at least."""
        self._opened += 1
        if self._opened > MOST_FILES:
            raise UsageError(f"{file}: more than {MOST_FILES} files are named, one by another")
        self.problems.open(file)
        source = Source(file, folder, variables)
        documents = read_documents(source, self.problems)
        if not documents or all(_is_null(document) for document in documents):
            raise UsageError(f"{file}:1: the file is empty", "it needs at least `services:`")
        interpolator = Interpolator(variables)
        read = [interpolate_tree(one, interpolator, self.problems) for one in documents if not _is_null(one)]
        self.used |= interpolator.used
        self.missing |= interpolator.missing
        for document in read:
            Value(self.problems, "", document).entries()  # a mistake unless it is a mapping
        return [one if isinstance(one.node, Table) else replace(one, node=Table({})) for one in read]

    def _apply_extends(self, document: Entry, before: Entry | None) -> Entry:
        """Return a document whose services have what they extend; ``before`` is what earlier files say."""
        services = _section(document, "services")
        if len(services) > MOST_SERVICES:
            value = Value(self.problems, "services", document)
            value.report(f"has {len(services)} services", f"at most {MOST_SERVICES}")
            return _with_section(document, "services", {})
        if not any("extends" in _entries(one) for one in services.values()):
            return document
        known = {**(_section(before, "services") if before is not None else {}), **services}
        made = {name: self._extend(name, services[name], known, ()) for name in services}
        return _with_section(document, "services", made)

    def _extend(
        self, name: str, service: Entry, known: Mapping[str, Entry], chain: tuple[tuple[Path, str], ...]
    ) -> Entry:
        """Return a service with what it extends, one of ``known`` or of another file's, and what that extends."""
        extends = _entries(service).get("extends")
        if extends is None or _is_null(extends):
            return service
        value = Value(self.problems, f"services.{name}.extends", extends)
        chain = (*chain, (service.source.file, name))
        fields = {"service": value} if value.is_text else value.fields(keys.EXTENDS.applied)
        other = require(fields, "service", value, "the service that it extends")
        own = replace(service, node=Table({key: one for key, one in _entries(service).items() if key != "extends"}))
        if other.is_null:
            return own
        text = other.text("a service's name")
        if "file" in fields and not fields["file"].is_null:
            found = self._open_extended(fields["file"])
            known = _section(found, "services") if found is not None else {}
            if found is None:
                return own
        if text not in known:
            other.report(f"{quote(text)} is no service to extend", f"one of {', '.join(known) or 'none'}")
            return own
        base = known[text]
        if len(chain) > DEEPEST_CHAIN:
            value.report(f"extends what extends, more than {DEEPEST_CHAIN} times", "fewer")
            return own
        if (base.source.file, text) in chain:
            circle = " -> ".join((*(name for _, name in chain), text))
            value.report(f"is a cycle: {circle}", "a service that does not extend itself")
            return own
        return self._merger.merge_services(self._extend(text, base, known, chain), own, name)

    def _open_extended(self, value: Value) -> Entry | None:
        """Return the tree of a file that a service's ``extends`` names."""
        file = self._locate(value)
        if file is None:
            return None
        key = (file, value.source.file)
        if key not in self._extended:
            documents = self._read(file, file.parent, value.source.variables)
            root = documents[0]
            for document in documents[1:]:
                root = self._merger.merge_files(root, document)
            self._extended[key] = root
        return self._extended[key]

    def _apply_includes(self, document: Entry, including: tuple[Path, ...]) -> Entry:
        """Return a document with what the files that it includes say."""
        entries = _entries(document)
        if "include" not in entries or _is_null(entries["include"]):
            return document
        value = Value(self.problems, "include", entries["include"])
        for item in value.items():
            included = self._include(item, including)
            if included is not None:
                document = self._import(included, document, item)
        return replace(document, node=Table({k: one for k, one in _entries(document).items() if k != "include"}))

    def _include(self, item: Value, including: tuple[Path, ...]) -> Entry | None:
        """Return the tree of what one item of ``include`` names."""
        fields = {"path": item} if item.is_text else item.fields(keys.INCLUDE.applied)
        path = require(fields, "path", item, "a compose file")
        if path.is_null:
            return None
        files = [self._locate(one) for one in (path.items() if path.is_list else [path])]
        found = [file for file in files if file is not None]
        if not found or len(found) < len(files):
            return None
        if circle := [file for file in found if file in including]:
            path.report(f"{quote(circle[0].name)} includes this file", "files that do not include each other")
            return None
        folder = found[0].parent
        if "project_directory" in fields:
            folder = resolve_path(item.source, fields["project_directory"].text("a folder"))
        variables = item.source.variables
        named = read_texts(fields["env_file"]) if "env_file" in fields else ()
        paths = [resolve_path(item.source, one) for one in named]
        try:
            defaults = read_defaults(paths or list_environment_files(folder), variables)
        except UsageError as error:
            item.report(error.message, error.hint)
            defaults = {}
        return self.load(found, folder, ChainMap(dict(variables), defaults), including)

    def _import(self, included: Entry, document: Entry, item: Value) -> Entry:
        """Return a document with an included one's services and what they share, which may not be there twice."""
        for key in _SHARED:
            own, further = _section(document, key), _section(included, key)
            for name in own.keys() & further.keys():
                # The same place of the same file, which two files include, is no conflict.
                if (own[name].source.file, own[name].line) != (further[name].source.file, further[name].line):
                    item.report(f"has {key}.{name}, which this file has otherwise", "a name of its own")
            if further:
                document = _with_section(document, key, {**further, **own})
        return document

    def _locate(self, value: Value) -> Path | None:
        """Return the file that a value names, if it is one to be read."""
        text = value.text("a compose file")
        if _REMOTE.fullmatch(text):
            value.report(f"{quote(text)} is not on this host", "a file beside this one: fetch it first")
            return None
        file = resolve_path(value.source, text)
        if not text or not os.path.isfile(file):
            value.report(f"there is no file {quote(text)}", "a compose file")
            return None
        try:
            if file.is_relative_to(value.source.folder):
                check_inside(file, value.source.folder)
        except UsageError as error:
            value.report(error.message, error.hint)
            return None
        # Messages quote such a file, so it is to be one that may be.
        if Path(os.path.realpath(file)).suffix not in _YAML:
            value.report(f"{quote(text)} is no YAML by its name", f"a name that ends with {', '.join(_YAML)}")
            return None
        return file


def list_environment_files(folder: Path) -> list[Path]:
    """Return the ``.env`` of a folder, if there is one."""
    file = folder / ENVIRONMENT_FILE
    return [file] if os.path.isfile(file) else []


def read_defaults(files: Sequence[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of these files, which the environment's come before. Raises UsageError."""
    defaults: dict[str, str] = {}
    for file in files:
        defaults |= read_variables(file, ChainMap(dict(environment), defaults))
    return defaults


def _entries(entry: Entry) -> Mapping[str, Entry]:
    return entry.node.entries if isinstance(entry.node, Table) else {}


def _section(document: Entry, key: str) -> Mapping[str, Entry]:
    section = _entries(document).get(key)
    return _entries(section) if section is not None else {}


def _with_section(document: Entry, key: str, entries: Mapping[str, Entry]) -> Entry:
    """Return a document in which a section has these entries."""
    old = _entries(document).get(key)
    section = (
        Entry(document.source, document.line, Table(entries)) if old is None else replace(old, node=Table(entries))
    )
    return replace(document, node=Table({**_entries(document), key: section}))


def _is_null(entry: Entry) -> bool:
    return isinstance(entry.node, Scalar) and entry.node.kind == NULL.kind
