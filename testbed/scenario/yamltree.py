"""YAML read as a tree of positioned values, so that every complaint names file, line and key.

Only what is asked for is looked at: a reader walks from the root with ``fields``, ``items``, ``text`` and ``number``.
What is wrong is noted, with what was expected, and reading goes on with a harmless substitute: a file's mistakes are
reported all at once. Others wrote the file: its size, its depth, its values and what its aliases expand to are bounded.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml
from msgspec import Struct

from runtime.errors import UsageError
from runtime.files import read_bounded

MOST_BYTES = 2**20
MOST_NODES = 20_000
DEEPEST = 64
# As long as everything merged into one mapping may be; a merge of merges multiplies.
MOST_MERGED = 20_000
MOST_PROBLEMS = 50
SHOWN_CHARACTERS = 60

_NULL_TAG = "tag:yaml.org,2002:null"
_BOOLEAN_TAG = "tag:yaml.org,2002:bool"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Problems:
    """What is wrong in a file: the first mistake at a key, and none below a key that is wrong itself."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._problems: list[tuple[int, str]] = []
        self._paths: set[str] = set()
        self._more = 0

    def add(self, line: int, path: str, problem: str, expected: str) -> None:
        """Note a mistake at ``path``, unless it follows from one that has been noted."""
        parents = {path[:index] for index, character in enumerate(path) if character in ".["}
        if self._paths & {"", path, *parents}:
            return
        self._paths.add(path)
        if len(self._problems) == MOST_PROBLEMS:
            self._more += 1
            return
        text = f"{path or '(top level)'}: {problem}" + (f"; expected {expected}" if expected else "")
        # A key may spell what a terminal would obey.
        printable = "".join(character if character.isprintable() else "?" for character in text)
        self._problems.append((line, printable))

    def check(self) -> None:
        """Raise a UsageError that reports all of them, in the order of their lines, if there are any."""
        if self._problems:
            lines = [
                f"{self.file}:{line}: {text}" for line, text in sorted(self._problems, key=lambda problem: problem[0])
            ]
            lines += [f"and {self._more} more"] if self._more else []
            raise UsageError("\n".join(lines))


class Value(Struct, frozen=True):
    """One value of the file: ``path`` is its key as ``services.web.ports[0]``, ``line`` counts from 1."""

    problems: Problems
    path: str
    line: int
    node: yaml.Node

    @property
    def file(self) -> Path:
        return self.problems.file

    def report(self, problem: str, expected: str = "") -> None:
        """Note a mistake in this value; it is reported as ``file:line: key: problem; expected ...``."""
        self.problems.add(self.line, self.path, problem, expected)

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL_TAG

    @property
    def is_text(self) -> bool:
        """Whether it is a scalar that can be read as text: no null, list or mapping."""
        return isinstance(self.node, yaml.ScalarNode) and not self.is_null

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    def entries(self) -> dict[str, Value]:
        """Return the values of a mapping by key, in the file's order, after merging ``<<``. Duplicate keys are a
        mistake."""
        if not isinstance(self.node, yaml.MappingNode):
            self.report(f"is {_kind(self.node)}", "a mapping of keys to values")
            return {}
        return _Merging(self).flattened(self.node, frozenset())

    def fields(self, expected: Collection[str], unsupported: Mapping[str, str] | None = None) -> dict[str, Value]:
        """Return the ``entries`` that are ``expected``. All others but extensions (``x-...``) are mistakes.

        ``unsupported`` maps keys that a reader may well use to what to do instead.
        """
        values: dict[str, Value] = {}
        for key, value in self.entries().items():
            if key in expected:
                values[key] = value
            elif not key.startswith("x-"):
                value.report("is not supported by the testbed", self._instead(key, expected, unsupported or {}))
        return values

    def items(self) -> list[Value]:
        """Return the items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.report(f"is {_kind(self.node)}", "a list")
            return []
        return [
            Value(self.problems, f"{self.path}[{index}]", node.start_mark.line + 1, node)
            for index, node in enumerate(self.node.value)
        ]

    def text(self, expected: str = "text") -> str:
        """Return a scalar as it is written, ``$$`` read as ``$`` (Compose specification, "Interpolation"); "" if it is
        wrong.

        A variable is a mistake: what a run measures may not depend on who started it.
        """
        if not isinstance(self.node, yaml.ScalarNode):
            self.report(f"is {_kind(self.node)}", expected)
            return ""
        if self.node.tag in (_NULL_TAG, _BOOLEAN_TAG) and not self.node.style:
            self.report(f"is {_kind(self.node)}", f"{expected}; quote it if these very letters are meant")
            return ""
        text = str(self.node.value)
        if "\0" in text:
            self.report("has a NUL character", expected)
            return ""
        variable = re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)([A-Za-z_{][^\s}]{0,60}}?)", text)
        if variable:
            self.report(
                f"uses the variable ${variable[1]}",
                "the value itself (a run must not depend on the environment), or $$ for a dollar sign",
            )
        return text.replace("$$", "$")

    def number(self, unit: str, *, above: float | None = None, low: float | None = None, high: float) -> float:
        """Return a number greater than ``above``, or at least ``low``, and at most ``high``; NaN if it is wrong."""
        bounds = [f"above {above:.12g}"] if above is not None else []
        bounds += [f"at least {low:.12g}"] if low is not None else []
        expected = f"a number {' and '.join([*bounds, f'at most {high:.12g}'])} ({unit})"
        written = self.text(expected)
        value = float(written) if _DECIMAL.fullmatch(written) else math.nan
        too_low = (above is not None and value <= above) or (low is not None and value < low)
        if not math.isfinite(value) or too_low or value > high:
            self.report(f"is {quote(written)}", expected)
            return float("nan")
        return value

    def integer(self, low: int, high: int, unit: str) -> int:
        """Return a whole number from ``low`` to ``high``; ``low`` if it is wrong."""
        expected = f"a whole number from {low} to {high} ({unit})"
        written = self.text(expected)
        if not re.fullmatch(r"[0-9]{1,18}", written) or not low <= int(written) <= high:
            self.report(f"is {quote(written)}", expected)
            return low
        return int(written)

    @staticmethod
    def _instead(key: str, expected: Collection[str], unsupported: Mapping[str, str]) -> str:
        if key in unsupported:
            return unsupported[key]
        close = difflib.get_close_matches(key[:SHOWN_CHARACTERS], expected, 1)
        return f"{close[0]!r} perhaps" if close else f"one of {', '.join(sorted(expected))}"


class _Merging:
    """One mapping with all that is merged into it, up to MOST_MERGED keys."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._seen = 0

    def flattened(self, node: yaml.MappingNode, inside: frozenset[int]) -> dict[str, Value]:
        """Return the mapping's own entries, after those that its ``<<`` adds."""
        value = self._value
        if id(node) in inside:
            value.report("merges itself", "an anchor that does not contain its own alias")
            return {}
        if len(inside) > DEEPEST:
            value.report(f"merges what merges, more than {DEEPEST} levels deep", "fewer levels")
            return {}
        merged: dict[str, Value] = {}
        values: dict[str, Value] = {}
        for key, content in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                value.problems.add(line, value.path, "has a key that is no text", "a key such as 'name'")
                continue
            name = _cut(str(key.value))
            path = f"{value.path}.{name}" if value.path else name
            self._seen += 1
            if self._seen > MOST_MERGED:
                value.report(f"merges more than {MOST_MERGED} keys", "fewer merges of merges")
                break
            if key.tag == _MERGE_TAG:
                for source in content.value if isinstance(content, yaml.SequenceNode) else [content]:
                    if isinstance(source, yaml.MappingNode):
                        for other, entry in self.flattened(source, inside | {id(node)}).items():
                            merged.setdefault(other, entry)
                    else:
                        value.problems.add(line, path, f"is {_kind(source)}", "an alias of a mapping")
            elif key.value in values:
                first = values[key.value].line
                value.problems.add(line, path, f"is there twice (first on line {first})", "each key once")
            else:
                values[key.value] = Value(value.problems, path, line, content)
        return {**{key: entry for key, entry in merged.items() if key not in values}, **values}


def require(fields: Mapping[str, Value], key: str, parent: Value, expected: str) -> Value:
    """Return ``fields[key]``. When it is missing that is a mistake on the line of its parent, and the value is null."""
    value = fields.get(key)
    if value is not None and not value.is_null:
        return value
    line = value.line if value is not None else parent.line
    path = f"{parent.path}.{key}" if parent.path else key
    parent.problems.add(line, path, "is missing", expected)
    return Value(parent.problems, path, line, yaml.ScalarNode(_NULL_TAG, ""))


def quote(text: str) -> str:
    """Return text as a message quotes it: short, and with nothing in it that a terminal would obey."""
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def read_tree(file: Path) -> Value:
    """Return the root of a YAML file. Raises UsageError when it cannot be read, is too large or not well-formed
    YAML."""
    try:
        text = read_bounded(file, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8") from error
    try:
        _check_size(file, text)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: {_problem(error, text)}") from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: a control character") from error
    if node is None:
        raise UsageError(f"{file}:1: the file is empty", "it needs at least `services:` and `x-testbed:`")
    return Value(Problems(file), "", node.start_mark.line + 1, node)


def _check_size(file: Path, text: str) -> None:
    """Count before anything is built: libyaml's composer is recursive, and ends the process for want of stack."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
            continue
        nodes += 1
        line = event.start_mark.line + 1 if event.start_mark else 1
        if depth > DEEPEST:
            raise UsageError(f"{file}:{line}: nested too deeply: more than {DEEPEST} levels")
        if nodes > MOST_NODES:
            raise UsageError(f"{file}:{line}: more than {MOST_NODES} values")


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.split("\n")
    if mark and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t"):
        return "a tab; indent with blanks"
    begun = f" that begins on line {error.context_mark.line + 1}:" if error.context and error.context_mark else ""
    return " ".join(filter(None, (f"{error.context or ''}{begun}", error.problem)))


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == _NULL_TAG:
        return "empty"
    return f"the boolean {node.value}" if node.tag == _BOOLEAN_TAG else quote(str(node.value))
