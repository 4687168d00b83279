"""How a service's image is built: ``build`` in both of its forms."""

from __future__ import annotations

import os
import re
from pathlib import Path

from testbed.compose import keys
from testbed.compose.forms import read_pairs
from testbed.compose.keys import Notes
from testbed.compose.model import Build, FileMount, Pairs
from testbed.compose.mounts import read_files, resolve_path
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://.*|git@.*|github\.com/.*", re.DOTALL)


def read_build(value: Value, service: str, notes: Notes) -> Build | None:
    """Return how an image is built; None when it cannot be told."""
    if not value.is_mapping:
        context = _read_context(value)
        return None if context is None else Build(context, _find_dockerfile(value, context, "Dockerfile"))
    fields = keys.BUILD.read(value, notes, service, "build.")
    setting = fields.get("context", value)
    context = _read_context(setting, "." if setting is value else "")
    if context is None:
        return None
    inline = ""
    dockerfile: Path | None = None
    if "dockerfile_inline" in fields:
        inline = fields["dockerfile_inline"].text("the text of a Dockerfile")
        if "dockerfile" in fields:
            fields["dockerfile"].report("is there beside dockerfile_inline", "one of the two")
    else:
        name = fields["dockerfile"].text("a Dockerfile") if "dockerfile" in fields else "Dockerfile"
        dockerfile = _find_dockerfile(fields.get("dockerfile", setting), context, name)
    return Build(
        context,
        dockerfile,
        inline,
        target=fields["target"].text("a stage of the Dockerfile") if "target" in fields else "",
        args=_read_args(fields["args"]) if "args" in fields else (),
        contexts=_read_contexts(fields["additional_contexts"]) if "additional_contexts" in fields else (),
        secrets=_read_secrets(fields["secrets"], service, notes) if "secrets" in fields else (),
    )


def _read_secrets(value: Value, service: str, notes: Notes) -> tuple[FileMount, ...]:
    return tuple(one for one, _ in read_files(value, "/run/secrets", service, notes))


def read_hosts(value: Value) -> Pairs:
    """Return names with their addresses: ``NAME:ADDRESS`` or ``NAME=ADDRESS``, a list of addresses for each too."""
    if value.is_mapping:
        entries = value.entries().items()
        return tuple(
            (name, address.text("an address"))
            for name, entry in entries
            for address in (entry.items() if entry.is_list else [entry])
        )
    pairs = []
    for item in value.items():
        text = item.text("NAME:ADDRESS")
        separator = "=" if "=" in text else ":"
        name, found, address = text.partition(separator)
        if not found or not name or not address:
            item.report(f"is {quote(text)}", "NAME:ADDRESS")
        pairs.append((name, address.strip("[]")))
    return tuple(pairs)


def _read_args(value: Value) -> Pairs:
    """Return names and texts; one without takes its text from the environment, and is left out when it has none."""
    variables = value.source.variables
    pairs = ((pair.name, variables.get(pair.name) if pair.text is None else pair.text) for pair in read_pairs(value))
    return tuple((name, text) for name, text in pairs if text is not None)


def _read_contexts(value: Value) -> Pairs:
    pairs = []
    for pair in read_pairs(value):
        text = pair.text or ""
        if _REMOTE.fullmatch(text) and not text.startswith(("docker-image://", "oci-layout://")):
            pair.value.report(f"is {quote(text)}", "a folder beside this file, docker-image:// or service:NAME")
        local = not text.startswith(("docker-image://", "oci-layout://", "service:", "target:"))
        pairs.append((pair.name, str(resolve_path(pair.value.source, text)) if local else text))
    return tuple(pairs)


def _read_context(setting: Value, folder: str = "") -> Path | None:
    """Return the absolute path of the build context."""
    folder = folder or setting.text("the folder to build from")
    if _REMOTE.fullmatch(folder):
        setting.report(f"{quote(folder)} is not on this host", "a folder: clone it first")
        return None
    # realpath, for resolve() raises an error of its own for links in a circle.
    context = Path(os.path.realpath(resolve_path(setting.source, folder)))
    if not folder or not os.path.isdir(context):
        setting.report(f"there is no folder {quote(folder)} beside this file", "the folder to build from")
        return None
    return context


def _find_dockerfile(value: Value, context: Path, name: str) -> Path:
    dockerfile = context / name
    # Errors quote a Dockerfile's lines, so it is to be one of the scenario's own files.
    named_inside = Path(os.path.normpath(dockerfile)).is_relative_to(context)
    home = context if named_inside else Path(os.path.realpath(value.source.folder))
    if not name or not os.path.isfile(dockerfile):
        value.report(f"there is no {quote(name)} in {context}", "a Dockerfile")
    elif not Path(os.path.realpath(dockerfile)).is_relative_to(home):
        value.report(f"{quote(name)} leads out of {home}", "a Dockerfile in that folder")
    return dockerfile
