"""One section of ``x-testbed`` after another, and what several of them hold: paths, rates, services, ports."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.load.requests import ANY_STATUS, PATH
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

DAY_S = 86_400
MOST_RATE_PER_S = 1_000_000
# A status in place of a number: any that is no failure of the server.
ANY = "any"


class Section:
    """One section of x-testbed with its ``keys``, each of which ``quick`` may override."""

    def __init__(
        self,
        parent: Value,
        base: Mapping[str, Value],
        quick: Mapping[str, Value],
        name: str,
        keys: tuple[str, ...],
    ) -> None:
        self._parent = parent
        self._name = name
        self.is_there = False
        self._fields: dict[str, Value] = {}
        for sections in (base, quick):
            if name in sections and not sections[name].is_null:
                self._parent, self.is_there = sections[name], True
                self._fields |= self._parent.fields(keys)

    def get(self, key: str) -> Value | None:
        """Return the value of a key, None when it is absent or empty."""
        value = self._fields.get(key)
        return None if value is None or value.is_null else value

    def needed(self, key: str, expected: str) -> Value:
        if not self.is_there:
            self._parent = require({}, self._name, self._parent, "at least its service and port")
            self.is_there = True
        return require(self._fields, key, self._parent, expected)

    def seconds(self, key: str, default: float, above: float | None = None) -> float:
        value = self.get(key)
        low = 0.0 if above is None else None
        return default if value is None else value.number("seconds", above=above, low=low, high=DAY_S)

    def integer(self, key: str, default: int, low: int, high: int, unit: str) -> int:
        value = self.get(key)
        return default if value is None else value.integer(low, high, unit)

    def path(self, default: str) -> str:
        value = self.get("path")
        return default if value is None else read_path(value)


def read_path(value: Value) -> str:
    """Return the path of an HTTP request."""
    path = value.text("a path such as /")
    if not PATH.fullmatch(path):
        value.report(f"is {quote(path)}", "a path that begins with /, of at most 4096 characters, without blanks")
    return path


def read_rate(value: Value) -> float:
    """Return a rate above 0, in requests per second; NaN if it is wrong."""
    return value.number("requests per second", above=0, high=MOST_RATE_PER_S)


def read_service(value: Value, names: tuple[str, ...]) -> str:
    """Return the name of a service, which is one of ``names`` when these are known."""
    name = value.text("the name of a service")
    if names and name not in names:
        value.report(f"{quote(name)} is no service of this file", f"one of {', '.join(names)}")
    return name


def read_port(value: Value) -> int:
    """Return a TCP port."""
    return value.integer(1, 65535, "a TCP port")


def read_status(value: Value) -> int:
    """Return an HTTP status, ANY_STATUS for ``any``."""
    if value.is_text and value.text() == ANY:
        return ANY_STATUS
    return value.integer(100, 599, f"an HTTP status, or {ANY}")
