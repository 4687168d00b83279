"""YAML read as a tree of positioned values, so that every complaint names file, line and key.

Only what is asked for is looked at: a reader walks from the root with ``fields``, ``items``, ``text`` and ``number``,
and each of them says what is wrong, where, and what was expected.
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

_NULL_TAG = "tag:yaml.org,2002:null"
_BOOLEAN_TAG = "tag:yaml.org,2002:bool"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Value(Struct, frozen=True):
    """One value of the file: ``path`` is its key as ``services.web.ports[0]``, ``line`` counts from 1."""

    file: Path
    path: str
    line: int
    node: yaml.Node

    def error(self, problem: str, expected: str = "") -> UsageError:
        """The error to raise about this value: ``file:line: key: problem; expected ...``."""
        return _error(self.file, self.line, self.path or "(top level)", problem, expected)

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
        """The values of a mapping by key, in the file's order, after merging ``<<``. Duplicate keys are an error."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"is {_kind(self.node)}", "a mapping of keys to values")
        return self._flattened(self.node, frozenset())

    def fields(self, known: Collection[str], unsupported: Mapping[str, str] | None = None) -> dict[str, Value]:
        """``entries`` without extensions (``x-...``), every key of which must be ``known``.

        ``unsupported`` maps keys that a reader may well use to what to do instead.
        """
        found: dict[str, Value] = {}
        for key, value in self.entries().items():
            if key in known:
                found[key] = value
            elif not key.startswith("x-"):
                raise value.error("is not supported by the testbed", self._instead(key, known, unsupported or {}))
        return found

    def items(self) -> list[Value]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"is {_kind(self.node)}", "a list")
        return [
            Value(self.file, f"{self.path}[{index}]", node.start_mark.line + 1, node)
            for index, node in enumerate(self.node.value)
        ]

    def text(self, expected: str = "text") -> str:
        """A scalar as it is written, ``$$`` read as ``$`` (Compose specification, "Interpolation").

        A variable is an error: what a run measures may not depend on who started it.
        """
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"is {_kind(self.node)}", expected)
        if self.node.tag in (_NULL_TAG, _BOOLEAN_TAG) and not self.node.style:
            raise self.error(f"is {_kind(self.node)}", f"{expected}; quote it if these very letters are meant")
        text = str(self.node.value)
        if "\0" in text:
            raise self.error("has a NUL character", expected)
        variable = re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)([A-Za-z_{][^\s}]*}?)", text)
        if variable:
            raise self.error(
                f"uses the variable ${variable[1]}",
                "the value itself (a run must not depend on the environment), or $$ for a dollar sign",
            )
        return text.replace("$$", "$")

    def number(self, *, above: float | None = None, low: float | None = None, high: float = math.inf) -> float:
        """A finite number greater than ``above``, or at least ``low``, and at most ``high``."""
        bounds = [f"above {above:g}"] if above is not None else []
        bounds += [f"at least {low:g}"] if low is not None else []
        bounds += [f"at most {high:g}"] if math.isfinite(high) else []
        expected = " ".join(["a number", " and ".join(bounds)])
        written = self.text(expected)
        value = float(written) if _DECIMAL.fullmatch(written) else math.nan
        too_low = (above is not None and value <= above) or (low is not None and value < low)
        if not math.isfinite(value) or too_low or value > high:
            raise self.error(f"is {written!r}", expected)
        return value

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        expected = f"a whole number from {low} to {high}"
        written = self.text(expected)
        if not re.fullmatch(r"[0-9]{1,18}", written) or not low <= int(written) <= high:
            raise self.error(f"is {written!r}", expected)
        return int(written)

    def _flattened(self, node: yaml.MappingNode, inside: frozenset[int]) -> dict[str, Value]:
        if id(node) in inside:
            raise self.error("merges itself", "an anchor that does not contain its own alias")
        merged: dict[str, Value] = {}
        found: dict[str, Value] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _error(self.file, line, self.path, "has a key that is no text", "a key such as 'name'")
            path = f"{self.path}.{key.value}" if self.path else str(key.value)
            if key.tag == _MERGE_TAG:
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        raise _error(self.file, line, path, f"is {_kind(source)}", "an alias of a mapping")
                    merged = self._flattened(source, inside | {id(node)}) | merged
            elif key.value in found:
                first = found[key.value].line
                raise _error(self.file, line, path, f"is there twice (first on line {first})", "each key once")
            else:
                found[key.value] = Value(self.file, path, line, value)
        return {**{key: value for key, value in merged.items() if key not in found}, **found}

    @staticmethod
    def _instead(key: str, known: Collection[str], unsupported: Mapping[str, str]) -> str:
        if key in unsupported:
            return unsupported[key]
        close = difflib.get_close_matches(key, known, 1)
        return f"{close[0]!r} perhaps" if close else f"one of {', '.join(sorted(known))}"


def required(fields: Mapping[str, Value], key: str, parent: Value, expected: str) -> Value:
    """``fields[key]``, or the error that it is missing, on the line of its parent."""
    value = fields.get(key)
    if value is None or value.is_null:
        place = value or parent
        path = f"{parent.path}.{key}" if parent.path else key
        raise _error(place.file, place.line, path, "is missing", expected)
    return value


def read_tree(file: Path) -> Value:
    """The root of a YAML file. Raises UsageError when it cannot be read or is not well-formed YAML."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: {_problem(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UsageError(f"{file}:{line}: not well-formed YAML: a control character") from error
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deeply") from error
    if node is None:
        raise UsageError(f"{file}:1: the file is empty", "it needs at least `services:` and `x-testbed:`")
    return Value(file, "", node.start_mark.line + 1, node)


def _problem(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in (error.problem or ""):
        return "a tab; indent with blanks"
    begun = f" that begins on line {error.context_mark.line + 1}," if error.context and error.context_mark else ""
    return " ".join(filter(None, (f"{error.context or ''}{begun}", error.problem)))


def _error(file: Path, line: int, path: str, problem: str, expected: str) -> UsageError:
    return UsageError(f"{file}:{line}: {path}: {problem}" + (f"; expected {expected}" if expected else ""))


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == _NULL_TAG:
        return "empty"
    return f"the boolean {node.value}" if node.tag == _BOOLEAN_TAG else f"{node.value!r}"
