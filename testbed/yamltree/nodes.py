"""YAML read into a tree whose every value knows its file and line, in time and memory that the file's size bounds.

Nodes are made of the parser's events in one pass. An alias is the very node that its anchor names, and a mapping merges
(``<<``) what is flat already, so aliases of aliases cost nothing. Scalars have the types that compose-go's reader gives
them (yaml.v3, resolve.go: YAML 1.2, with the octal numbers of 1.1). Others wrote the file: its size, its depth and what
it merges are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from msgspec import Struct

from runtime.errors import UsageError
from runtime.files import read_bounded
from testbed.yamltree.problems import Problems, cut

MOST_BYTES = 4 * 2**20
MOST_NODES = 100_000
DEEPEST = 64
# Keys that merges copy, in all; a chain of merges copies what is merged again and again.
MOST_MERGED = 500_000

Kind = Literal["str", "null", "bool", "int", "float", "time"]
# What a scalar, list or mapping says of the file that its own overrides (Compose specification, "Merge").
Directive = Literal["", "reset", "override"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where it is, ten times as fast
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_CORE = "tag:yaml.org,2002:"
_KINDS: Mapping[str, Kind] = MappingProxyType(
    {"null": "null", "bool": "bool", "int": "int", "float": "float", "timestamp": "time"}
)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))
_NOT_FINITE = re.compile(r"[+-]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?.{0,6})?")


class Source(Struct, frozen=True):
    """A file, the folder that relative paths in it start from, and the variables that it may use."""

    file: Path
    folder: Path
    variables: Mapping[str, str] = _NO_VARIABLES


class Scalar(Struct, frozen=True):
    """A scalar as it is written, and what it is read as."""

    text: str
    kind: Kind = "str"
    directive: Directive = ""


class Sequence(Struct, frozen=True):
    """A list."""

    items: tuple[Entry, ...]
    directive: Directive = ""


class Table(Struct, frozen=True):
    """A mapping, in the file's order, after merging ``<<``."""

    entries: Mapping[str, Entry]
    directive: Directive = ""


Node = Scalar | Sequence | Table
NULL = Scalar("", "null")


class Entry(Struct, frozen=True):
    """A node where it stands: its source, and the line (from 1) of its key, or of itself in a list."""

    source: Source
    line: int
    node: Node


def classify(text: str) -> Kind:
    """Return what a plain scalar is read as."""
    if text in _NULLS:
        return "null"
    if text in _BOOLEANS:
        return "bool"
    digits = text.replace("_", "") if text[0] in "+-.0123456789" else ""
    if not digits:
        return "str"
    if _TIME.fullmatch(text):
        return "time"
    if _INTEGER.fullmatch(digits):
        return "int"
    return "float" if _FLOAT.fullmatch(digits) or _NOT_FINITE.fullmatch(text) else "str"


def read_documents(source: Source, problems: Problems) -> list[Entry]:
    """Return the documents of a YAML file; mistakes that do not hide others are noted.

    Raises UsageError, which names the line, when it cannot be read, is too large or not well-formed YAML.
    """
    file = source.file
    try:
        text = read_bounded(file, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8") from error
    return parse_documents(text, source, problems)


def parse_documents(text: str, source: Source, problems: Problems) -> list[Entry]:
    """Return the documents in a text; ``source`` says where it stands. Errors as ``read_documents``."""
    file = source.file
    builder = _Builder(source, problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: {_problem(error, text)}") from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: a control character") from error
    return builder.documents


class _Frame:
    """A list or mapping whose end has not come."""

    def __init__(self, event: yaml.Event, path: str, line: int) -> None:
        self.is_table = isinstance(event, yaml.MappingStartEvent)
        self.anchor: str | None = event.anchor  # type: ignore[attr-defined]
        self.directive = _directive(event.tag)  # type: ignore[attr-defined]
        self.path = path
        self.line = line
        self.height = 0
        self.items: list[Entry] = []
        self.entries: dict[str, Entry] = {}
        self.sources: list[Table] = []
        self.key: str | None = None
        self.key_line = 0
        self.merges = False

    @property
    def next_path(self) -> str:
        """The path of what comes next in it."""
        if not self.is_table:
            return f"{self.path}[{len(self.items)}]"
        if self.key is None:
            return self.path
        return f"{self.path}.{cut(self.key)}" if self.path else cut(self.key)


class _Builder:
    """Makes nodes of events. A key is complete only with its value, so each frame remembers one."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.documents: list[Entry] = []
        self._source = source
        self._problems = problems
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._merged = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.ScalarEvent):
            self._count(line)
            self._put(Scalar(event.value, _kind(event), _directive(event.tag)), line, 0, event.anchor)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._count(line)
            path = self._frames[-1].next_path if self._frames else ""
            self._frames.append(_Frame(event, path, line))
            self._check_depth(len(self._frames), line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = self._frames.pop()
            self._put(self._finish(frame), frame.line, frame.height + 1, frame.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._count(line)
            self._put(*self._follow(event.anchor or "", line), None)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors = {}

    def _follow(self, name: str, line: int) -> tuple[Node, int, int]:
        """Return what an alias names, the line and how deep it is nested."""
        if any(frame.anchor == name for frame in self._frames):
            path = self._frames[-1].next_path
            self._add(line, path, f"is a part of &{cut(name)}, which it names", "an alias of something else")
            return NULL, line, 0
        if name not in self._anchors:
            raise UsageError(f"{self._source.file}:{line}: not well-formed YAML: no anchor &{cut(name)} before *")
        node, height = self._anchors[name]
        return node, line, height

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise UsageError(f"{self._source.file}:{line}: more than {MOST_NODES} values")

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > DEEPEST:
            raise UsageError(f"{self._source.file}:{line}: nested too deeply: more than {DEEPEST} levels")

    def _add(self, line: int, path: str, problem: str, expected: str) -> None:
        self._problems.add(self._source.file, line, path, problem, expected)

    def _put(self, node: Node, line: int, height: int, anchor: str | None) -> None:
        """Put a complete node where it belongs; ``height`` counts the levels within it."""
        if anchor is not None:
            self._anchors[anchor] = node, height
        if not self._frames:
            self.documents.append(Entry(self._source, line, node))
            return
        frame = self._frames[-1]
        if frame.key is not None and frame.merges:  # what is merged is no level
            height -= 2 if isinstance(node, Sequence) else 1
        # What an alias brings is nested in what has the alias.
        self._check_depth(len(self._frames) + height, line)
        frame.height = max(frame.height, height)
        if not frame.is_table:
            frame.items.append(Entry(self._source, line, node))
        elif frame.key is None:
            self._begin_entry(frame, node, line)
        else:
            self._end_entry(frame, node)

    def _begin_entry(self, frame: _Frame, node: Node, line: int) -> None:
        frame.key_line, frame.merges = line, False
        if isinstance(node, Scalar):
            frame.key = node.text
            frame.merges = node.text == "<<"
        else:
            self._add(line, frame.path, "has a key that is no text", "a key such as 'name'")
            frame.key = ""

    def _end_entry(self, frame: _Frame, node: Node) -> None:
        key, path, line = frame.key or "", frame.next_path, frame.key_line
        frame.key = None
        if frame.merges:
            for source in [item.node for item in node.items] if isinstance(node, Sequence) else [node]:
                if isinstance(source, Table):
                    frame.sources.append(source)
                elif source is not NULL:
                    self._add(line, path, f"is {describe(source)}", "an alias of a mapping")
        elif key in frame.entries:
            self._add(line, path, f"is there twice (first on line {frame.entries[key].line})", "each key once")
        else:
            frame.entries[key] = Entry(self._source, line, node)

    def _finish(self, frame: _Frame) -> Node:
        if not frame.is_table:
            return Sequence(tuple(frame.items), frame.directive)
        merged: dict[str, Entry] = {}
        for source in frame.sources:
            self._merged += len(source.entries)
            if self._merged > MOST_MERGED:
                self._add(frame.line, frame.path, f"merges more than {MOST_MERGED} keys", "fewer merges of merges")
                break
            for key, entry in source.entries.items():
                merged.setdefault(key, entry)
        if merged:
            own = frame.entries
            return Table({**{key: entry for key, entry in merged.items() if key not in own}, **own}, frame.directive)
        return Table(frame.entries, frame.directive)


def children(node: Node) -> Iterator[Entry]:
    """Yield the entries of a list or mapping."""
    if isinstance(node, Sequence):
        yield from node.items
    elif isinstance(node, Table):
        yield from node.entries.values()


def describe(node: Node) -> str:
    """Return what a node is, for a message."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.kind == "null":
        return "empty"
    return f"the boolean {node.text}" if node.kind == "bool" else repr(cut(node.text))


def _kind(event: yaml.ScalarEvent) -> Kind:
    if event.tag and event.tag != "!" and event.tag.startswith(_CORE):
        return _KINDS.get(event.tag.removeprefix(_CORE), "str")
    if event.tag in ("!reset", "!override"):
        return classify(event.value) if event.style in (None, "") else "str"
    return classify(event.value) if event.implicit[0] and event.style in (None, "") else "str"


def _directive(tag: str | None) -> Directive:
    if tag == "!reset":
        return "reset"
    return "override" if tag == "!override" else ""


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.split("\n")
    if mark and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t"):
        return "a tab; indent with blanks"
    begun = f" that begins on line {error.context_mark.line + 1}:" if error.context and error.context_mark else ""
    return " ".join(filter(None, (f"{error.context or ''}{begun}", error.problem)))
