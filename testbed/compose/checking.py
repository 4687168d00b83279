"""When a service counts as healthy, and what other services wait for."""

from __future__ import annotations

from typing import get_args

from msgspec.structs import replace

from testbed.compose import keys
from testbed.compose.forms import read_duration
from testbed.compose.keys import Notes
from testbed.compose.model import Condition, Dependency, Healthcheck
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

_CONDITIONS = get_args(Condition)
_MOST_RETRIES = 1_000_000
_TEST = "a command, or a list that begins with CMD, CMD-SHELL or NONE"


def read_dependencies(value: Value, service: str, notes: Notes) -> tuple[Dependency, ...]:
    """Return what ``depends_on`` says in both forms."""
    if value.is_list:
        names = dict.fromkeys(item.text("a service's name") for item in value.items())
        return tuple(Dependency(name) for name in names)
    dependencies = []
    for name, entry in value.entries().items():
        fields = keys.DEPENDENCY.read(entry, notes, service, "depends_on.")
        written = require(fields, "condition", entry, f"one of {', '.join(_CONDITIONS)}")
        text = "" if written.is_null else written.text("a condition")
        condition = next((one for one in _CONDITIONS if one == text), None)
        if condition is None and not written.is_null:
            written.report(f"is {quote(text)}", f"one of {', '.join(_CONDITIONS)}")
        required = "required" not in fields or fields["required"].boolean()
        dependencies.append(Dependency(name, condition or "service_started", required))
    return tuple(dependencies)


def read_healthcheck(value: Value, service: str, notes: Notes) -> Healthcheck:
    """Return how a service is checked."""
    fields = keys.HEALTHCHECK.read(value, notes, service, "healthcheck.")
    if "disable" in fields and fields["disable"].boolean():
        return Healthcheck(disabled=True)
    check = Healthcheck()
    if "test" in fields:
        test = _read_test(fields["test"])
        if test is None:
            return Healthcheck(disabled=True)
        check = replace(check, test=test)
    times = {
        f"{key}_s": read_duration(fields[key])
        for key in ("interval", "timeout", "start_period", "start_interval")
        if key in fields
    }
    if "retries" in fields:
        check = replace(check, retries=fields["retries"].integer(0, _MOST_RETRIES, "retries"))
    # For Docker, 0 is the same as nothing.
    return replace(check, retries=check.retries or 3, **{key: time for key, time in times.items() if time})


def _read_test(value: Value) -> tuple[str, ...] | None:
    """Return the words of a check's command, None for none at all."""
    if not value.is_list:
        return ("/bin/sh", "-c", value.text(_TEST))
    words = [item.printed("a word of the command") for item in value.items()]
    if words == ["NONE"]:
        return None
    if words[:1] == ["CMD-SHELL"] and len(words) >= 2:
        return ("/bin/sh", "-c", *words[1:])
    if words[:1] != ["CMD"] or len(words) < 2:
        value.report(f"begins with {quote(words[0]) if words else 'nothing'}", _TEST)
        return ("true",)
    return tuple(words[1:])
