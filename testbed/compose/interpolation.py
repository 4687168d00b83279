"""Variables in the values of compose files (Compose specification, "Interpolation"), replaced in linear time.

The forms are ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?error}``, ``${NAME?error}``,
``${NAME:+replacement}`` and ``${NAME+replacement}``, where what follows the operator may have variables itself, and
``$$`` for a dollar sign. What a variable holds is not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from testbed.yamltree.nodes import Entry, Node, Scalar, Sequence, Table
from testbed.yamltree.problems import Problems, cut, quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_PLAIN = re.compile(r"[^$}]+")
_DEEPEST = 20
MOST_CHARACTERS = 16 * 2**20
_FORMS = "$NAME, ${NAME}, ${NAME:-default} or the like, and $$ for a dollar sign"


class InterpolationError(ValueError):
    """A text whose variables are malformed, or lack a value that they must have."""

    def __init__(self, problem: str, expected: str = _FORMS) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected


class Interpolator:
    """Replaces the variables of texts by their values in ``variables``; ``used`` are the names of those that were
    there, ``missing`` of those that were not and had no default."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.used: dict[str, str] = {}
        self.missing: dict[str, None] = {}
        self._made = 0

    def interpolate(self, text: str) -> str:
        """Return a text with its variables replaced. Raises InterpolationError."""
        if "$" not in text:
            return text
        made, end = self._read(text, 0, inside=0, counts=True)
        assert end == len(text)
        return made

    def _read(self, text: str, at: int, inside: int, counts: bool) -> tuple[str, int]:
        """Return what a text is from ``at`` on to its end or, inside of braces, to the one that closes them; only if it
        ``counts`` are its variables asked for."""
        if inside > _DEEPEST:
            raise InterpolationError(f"nests variables more than {_DEEPEST} deep")
        parts: list[str] = []
        while at < len(text):
            if match := _PLAIN.match(text, at):
                parts.append(match[0])
                at = match.end()
            elif text[at] == "}":
                if inside:
                    return "".join(parts), at
                parts.append("}")
                at += 1
            elif text.startswith("$$", at):
                parts.append("$")
                at += 2
            elif text.startswith("${", at):
                part, at = self._braced(text, at + 2, inside, counts)
                parts.append(part)
            elif match := _NAME.match(text, at + 1):
                parts.append(self._value(match[0], counts))
                at = match.end()
            else:
                raise InterpolationError(f"has {quote(text[at : at + 20])}, which is no variable")
            self._made += len(parts[-1])
            if self._made > MOST_CHARACTERS:
                raise InterpolationError("is too long once its variables are replaced", "shorter values")
        if inside:
            raise InterpolationError("has ${ without its }")
        return "".join(parts), at

    def _braced(self, text: str, at: int, inside: int, counts: bool) -> tuple[str, int]:
        """Return what a variable in braces stands for, and where its text goes on."""
        name = _NAME.match(text, at)
        if name is None:
            raise InterpolationError(f"has {quote('${' + text[at : at + 20])}, which is no variable")
        at = name.end()
        if text.startswith("}", at):
            return self._value(name[0], counts), at + 1
        operator = _OPERATOR.match(text, at)
        if operator is None:
            raise InterpolationError(f"has {quote('${' + name[0] + text[at : at + 20])}, which is no variable")
        value = self.variables.get(name[0])
        there = bool(value) if operator[0][0] == ":" else value is not None
        kind = operator[0][-1]
        word, at = self._read(text, operator.end(), inside + 1, counts and there == (kind == "+"))
        if counts and value is not None:
            self.used[name[0]] = value
        if kind == "+":
            return (word if there else ""), at + 1
        if there:
            return value or "", at + 1
        if kind == "?" and counts:
            said = f": {cut(word)}" if word else ""
            raise InterpolationError(f"needs the variable {cut(name[0])}{said}", "a value in the environment or .env")
        return word, at + 1

    def _value(self, name: str, counts: bool) -> str:
        value = self.variables.get(name)
        if counts:
            if value is None:
                self.missing[name] = None
            else:
                self.used[name] = value
        return value or ""


def interpolate_tree(entry: Entry, interpolator: Interpolator, problems: Problems) -> Entry:
    """Return a tree with the variables of all its values replaced; keys stay as they are. Mistakes are noted."""
    done: dict[int, Node] = {}

    def walk(entry: Entry, path: str) -> Entry:
        node = entry.node
        if id(node) not in done:
            done[id(node)] = change(entry, path)
        changed = done[id(node)]
        return entry if changed is node else replace(entry, node=changed)

    def change(entry: Entry, path: str) -> Node:
        node = entry.node
        if isinstance(node, Scalar):
            if "$" not in node.text:
                return node
            try:
                # compose-go replaces in what is a string already: the result is one.
                return Scalar(interpolator.interpolate(node.text), "str", node.directive)
            except InterpolationError as error:
                problems.add(entry.source.file, entry.line, path, error.problem, error.expected)
                return Scalar("", "str", node.directive)
        if isinstance(node, Sequence):
            items = tuple(walk(item, f"{path}[{index}]") for index, item in enumerate(node.items))
            same = all(one is other for one, other in zip(items, node.items, strict=True))
            return node if same else Sequence(items, node.directive)
        entries = {key: walk(item, f"{path}.{cut(key)}" if path else cut(key)) for key, item in node.entries.items()}
        same = all(entries[key] is item for key, item in node.entries.items())
        return node if same else Table(entries, node.directive)

    return walk(entry, "")
