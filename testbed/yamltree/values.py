"""The values of a YAML tree as readers ask for them, so that every complaint names file, line and key.

Only what is asked for is looked at: a reader walks from the root with ``fields``, ``items``, ``text`` and ``number``.
What is wrong is noted, with what was expected, and reading goes on with a harmless substitute: mistakes are reported
all at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from runtime.errors import UsageError
from testbed.yamltree.nodes import NULL, Entry, Node, Scalar, Sequence, Source, Table, describe, read_documents
from testbed.yamltree.problems import SHOWN_CHARACTERS, Problems, cut, quote

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A boolean where one is asked for, from a variable too (compose-go, interpolation): YAML 1.1 has more of them.
_TRUE = frozenset(("true", "yes", "on", "y", "1", "t"))
_FALSE = frozenset(("false", "no", "off", "n", "0", "f"))


class Value(Struct, frozen=True):
    """One value of a file: ``path`` is its key as ``services.web.ports[0]``."""

    problems: Problems
    path: str
    entry: Entry

    @property
    def node(self) -> Node:
        return self.entry.node

    @property
    def line(self) -> int:
        """Its line, from 1."""
        return self.entry.line

    @property
    def file(self) -> Path:
        return self.entry.source.file

    @property
    def source(self) -> Source:
        return self.entry.source

    def report(self, problem: str, expected: str = "") -> None:
        """Note a mistake in this value; it is reported as ``file:line: key: problem; expected ...``."""
        self.problems.add(self.file, self.line, self.path, problem, expected)

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, Scalar) and self.node.kind == "null"

    @property
    def is_text(self) -> bool:
        """Whether it is a scalar that can be read as text: no null, list or mapping."""
        return isinstance(self.node, Scalar) and not self.is_null

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, Sequence)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, Table)

    def entries(self) -> dict[str, Value]:
        """Return the values of a mapping by key, in the file's order."""
        if not isinstance(self.node, Table):
            self.report(f"is {describe(self.node)}", "a mapping of keys to values")
            return {}
        return {key: self.child(key, entry) for key, entry in self.node.entries.items()}

    def child(self, key: str, entry: Entry) -> Value:
        """Return an entry of this mapping as a value."""
        return Value(self.problems, f"{self.path}.{cut(key)}" if self.path else cut(key), entry)

    def fields(
        self, expected: Collection[str], unsupported: Mapping[str, str] | None = None, where: str = "the testbed"
    ) -> dict[str, Value]:
        """Return the ``entries`` that are ``expected``. All others but extensions (``x-...``) are mistakes.

        ``unsupported`` maps keys that a reader may well use to what to do instead; ``where`` is what has no others.
        """
        values: dict[str, Value] = {}
        for key, value in self.entries().items():
            if key in expected:
                values[key] = value
            elif not key.startswith("x-"):
                value.report(f"is not supported by {where}", _instead(key, expected, unsupported or {}))
        return values

    def items(self) -> list[Value]:
        """Return the items of a list."""
        if not isinstance(self.node, Sequence):
            self.report(f"is {describe(self.node)}", "a list")
            return []
        return [Value(self.problems, f"{self.path}[{index}]", entry) for index, entry in enumerate(self.node.items)]

    def text(self, expected: str = "text") -> str:
        """Return a scalar as it is written; "" if it is wrong."""
        node = self.node
        if not isinstance(node, Scalar):
            self.report(f"is {describe(node)}", expected)
            return ""
        if node.kind in ("null", "bool"):
            self.report(f"is {describe(node)}", f"{expected}; quote it if these very letters are meant")
            return ""
        return self._without_nul(node.text, expected)

    def printed(self, expected: str = "text, a number or a boolean") -> str:
        """Return a scalar as compose-go prints it: a number by its value, ``0777`` as 511 and ``1.50`` as 1.5."""
        node = self.node
        if not isinstance(node, Scalar) or node.kind == "null":
            self.report(f"is {describe(node)}", expected)
            return ""
        return self._without_nul(print_scalar(node), expected)

    def _without_nul(self, text: str, expected: str) -> str:
        if "\0" in text:
            self.report("has a NUL character", expected)
            return ""
        return text

    def boolean(self) -> bool:
        """Return a boolean, also of a variable's text; False if it is wrong."""
        word = self.node.text.lower() if isinstance(self.node, Scalar) else ""
        if word not in _TRUE | _FALSE:
            self.report(f"is {describe(self.node)}", "true or false")
        return word in _TRUE

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
        if not re.fullmatch(r"-?[0-9]{1,18}", written) or not low <= int(written) <= high:
            self.report(f"is {quote(written)}", expected)
            return low
        return int(written)


def print_scalar(node: Scalar) -> str:
    """Return a scalar as Go's fmt prints what yaml.v3 reads (compose-go, types.MappingWithEquals)."""
    text = node.text
    if node.kind == "bool":
        return text.lower()
    if node.kind == "int":
        return str(_parse_integer(text.replace("_", "")))
    if node.kind == "float":
        return _print_float(text.replace("_", ""))
    return text


def _parse_integer(text: str) -> int | str:
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if len(digits) > 20:  # beyond 64 bits Go reads a float
        return _print_float(text)
    lower = digits.lower()
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        if lower.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * (int(digits, 8) if len(digits) > 1 and digits[0] == "0" else int(digits))


def _print_float(text: str) -> str:
    """Print as Go's %v does: the shortest digits, with an exponent below 1e-4 and from 1e21 on."""
    if "inf" in text.lower():
        return "-Inf" if text.startswith("-") else "+Inf"
    if "nan" in text.lower():
        return "NaN"
    value = float(text)
    if not math.isfinite(value):
        return text
    mantissa, _, exponent = f"{value!r}".partition("e")
    mantissa = mantissa.removesuffix(".0")
    if not exponent:
        return mantissa
    power = int(exponent)
    if not 0 <= power < 21:
        return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    whole, _, fraction = mantissa.partition(".")  # Python begins with exponents at 1e16
    return whole + fraction.ljust(power, "0")


def require(fields: Mapping[str, Value], key: str, parent: Value, expected: str) -> Value:
    """Return ``fields[key]``. When it is missing that is a mistake on the line of its parent, and the value is null."""
    value = fields.get(key)
    if value is not None and not value.is_null:
        return value
    missing = parent.child(key, Entry(parent.source, value.line if value is not None else parent.line, NULL))
    missing.report("is missing", expected)
    return missing


def _instead(key: str, expected: Collection[str], unsupported: Mapping[str, str]) -> str:
    if key in unsupported:
        return unsupported[key]
    close = difflib.get_close_matches(key[:SHOWN_CHARACTERS], expected, 1)
    return f"{close[0]!r} perhaps" if close else f"one of {', '.join(sorted(expected))}"


def read_tree(file: Path) -> Value:
    """Return the root of a YAML file of one document. Raises UsageError when it cannot be read, is too large or not
    well-formed YAML."""
    problems = Problems()
    documents = read_documents(Source(file, file.parent), problems)
    if not documents:
        raise UsageError(f"{file}:1: the file is empty")
    if len(documents) > 1:
        raise UsageError(f"{file}:{documents[1].line}: a second document", "one is all that is read")
    return Value(problems, "", documents[0])
