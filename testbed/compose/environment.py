"""The environment of a service: what ``env_file`` and ``environment`` say, the latter last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import UsageError
from testbed.compose import keys
from testbed.compose.dotenv import read_variables
from testbed.compose.forms import read_pairs
from testbed.compose.keys import Notes
from testbed.compose.model import Pairs
from testbed.compose.mounts import resolve_path
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require


def read_environment(fields: Mapping[str, Value], service: str, notes: Notes) -> Pairs:
    """Return names and texts. A name without a text has that of the project's variables, and is left out without."""
    environment: dict[str, str] = {}
    if "env_file" in fields:
        value = fields["env_file"]
        for item in value.items() if value.is_list else [value]:
            environment |= _read_file(item, service, notes)
    for pair in read_pairs(fields["environment"]) if "environment" in fields else ():
        text = pair.value.source.variables.get(pair.name) if pair.text is None else pair.text
        if "\0" in (text or ""):
            pair.value.report("has a NUL character", "text")
        if text is None:
            environment.pop(pair.name, None)
        else:
            environment[pair.name] = text
    return tuple(environment.items())


def _read_file(item: Value, service: str, notes: Notes) -> dict[str, str]:
    """Return the variables of one file, which may be named with whether it must be there."""
    required, raw, where = True, False, item
    if item.is_mapping:
        fields = keys.ENV_FILE.read(item, notes, service)
        where = require(fields, "path", item, "a file")
        required = "required" not in fields or fields["required"].boolean()
        raw = "format" in fields and fields["format"].text("raw") == "raw"
        if "format" in fields and not raw:
            fields["format"].report("is no format", "raw, or none for Compose's own")
        if where.is_null:
            return {}
    name = where.text("a file of NAME=value lines")
    path = resolve_path(where.source, name)
    if not name or (not os.path.isfile(path) and required):
        where.report(f"there is no file {quote(name)} beside this one", "a file of NAME=value lines")
    if not name or not os.path.isfile(path):
        return {}
    return _read_checked(where, path, raw)


def _read_checked(where: Value, path: Path, raw: bool) -> dict[str, str]:
    try:
        return read_variables(path, where.source.variables, raw=raw)
    except UsageError as error:
        # A message may quote the file, which should then be one of the scenario's own.
        own = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(where.source.folder))
        problem = error.message if own else f"{quote(str(path))} cannot be read as variables"
        where.report(problem, error.hint or "lines such as NAME=value")
        return {}
