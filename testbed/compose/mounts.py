"""What is mounted in a service: volumes in short and long form, tmpfs, secrets and configs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from testbed.compose import keys
from testbed.compose.forms import read_bytes, read_texts
from testbed.compose.keys import Keys, Notes
from testbed.compose.model import FileMount, Mount, MountKind
from testbed.compose.volumes import is_path, split_volume
from testbed.yamltree.nodes import Scalar, Source
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# Of the short form; those that only label or promise say nothing of what is mounted.
_WITHOUT_MEANING = ("rw", "z", "Z", "cached", "delegated", "consistent", "U")
# Of a tmpfs: what each is in any case.
_USUAL = ("rw", "nosuid", "nodev", "noexec")
_SHORT = "[SOURCE:]TARGET[:ro], with an absolute target"


def resolve_path(source: Source, text: str) -> Path:
    """Return the absolute path that a file means: relative to its project's folder, or to the user's home."""
    if text == "~" or text.startswith("~/"):
        home = source.variables.get("HOME", "") or "/root"
        return Path(os.path.normpath(home + text[1:]))
    return Path(os.path.normpath(source.folder.absolute() / text))


def read_mounts(value: Value, service: str, notes: Notes) -> Iterator[tuple[Mount, Value]]:
    """Yield what ``volumes`` mounts, each with where it stands."""
    for item in value.items():
        mount = _read_long(item, service, notes) if item.is_mapping else _read_short(item)
        if mount is not None:
            yield mount, item


def read_tmpfs(value: Value, service: str, notes: Notes) -> Iterator[tuple[Mount, Value]]:
    """Yield what ``tmpfs`` mounts: ``/path`` or ``/path:size=64m,mode=1777``."""
    items = value.items() if value.is_list else [value]
    for item in items:
        for text in read_texts(item):
            target, _, options = text.partition(":")
            mount = Mount("tmpfs", _checked_target(item, target))
            for option in filter(None, options.split(",")):
                name, _, given = option.partition("=")
                if name == "size" and re.fullmatch(r"[0-9]{1,15}[kmgKMG]?", given):
                    power = "bkmg".index(given[-1].lower()) if given[-1].isalpha() else 0
                    mount = replace(mount, size_bytes=int(given.rstrip("kmgKMG")) * 1024**power)
                elif name == "mode" and re.fullmatch(r"[0-7]{1,5}", given):
                    mount = replace(mount, mode=int(given, 8))
                elif name == "ro":
                    mount = replace(mount, read_only=True)
                elif name not in _USUAL:
                    notes.leave_out(f"tmpfs {name}", service)
            yield mount, item


def _checked_target(item: Value, target: str) -> str:
    """Return a path in the container, normalised."""
    if not target.startswith("/") or "\0" in target:
        item.report(f"mounts at {quote(target)}", "an absolute path in the container")
        return "/"
    return os.path.normpath("/" + target.lstrip("/"))


def _read_short(item: Value) -> Mount | None:
    text = item.text(_SHORT)
    if not text:
        return None
    short = split_volume(text)
    if text.startswith(":"):
        item.report(f"is {quote(text)}, whose source is empty", _SHORT)
        return None
    mount = Mount("volume", _checked_target(item, short.target), short.source)
    if is_path(short.source):
        mount = replace(mount, kind="bind", source=str(resolve_path(item.source, short.source)))
    elif short.source and not _NAME.fullmatch(short.source):
        item.report(f"{quote(short.source)} is no volume's name", "a name, or a path that begins with ./ or /")
    for option in short.options:
        if option in ("ro", "readonly"):
            mount = replace(mount, read_only=True)
        elif option == "nocopy":
            mount = replace(mount, copy=False)
        elif option in _PROPAGATIONS:
            mount = replace(mount, propagation=option)
        elif option not in _WITHOUT_MEANING and option:
            item.report(f"has the option {quote(option)}", "ro, rw, z, Z, nocopy or a propagation")
    return mount


def _read_long(item: Value, service: str, notes: Notes) -> Mount | None:
    fields = keys.MOUNT.read(item, notes, service, "volumes.")
    kind = require(fields, "type", item, "bind, volume, tmpfs or image")
    name = kind.text("bind, volume, tmpfs or image") if not kind.is_null else ""
    kinds: Mapping[str, MountKind] = {"bind": "bind", "volume": "volume", "tmpfs": "tmpfs", "image": "image"}
    if name not in kinds:
        if name:
            kind.report(f"is {quote(name)}", "bind, volume, tmpfs or image")
        return None
    target = require(fields, "target", item, "where it is mounted in the container")
    source = fields["source"].text("what is mounted") if "source" in fields else ""
    mount = Mount(
        kinds[name],
        _checked_target(target, target.text("a path in the container")) if not target.is_null else "/",
        source,
        read_only="read_only" in fields and fields["read_only"].boolean(),
    )
    if name == "bind":
        if not source:
            item.report("has no source", "the path on this host that is mounted")
        mount = replace(mount, source=str(resolve_path(item.source, source)))
    return _read_options(mount, fields, service, notes)


def _read_options(mount: Mount, fields: Mapping[str, Value], service: str, notes: Notes) -> Mount:
    def read(kind: str, known: Keys) -> Mapping[str, Value]:
        return known.read(fields[kind], notes, service, f"volumes.{kind}.")

    if "bind" in fields:
        options = read("bind", keys.BIND)
        # The long form makes a missing path only when asked to (Compose specification, "volumes").
        mount = replace(mount, create="create_host_path" not in options or options["create_host_path"].boolean())
        if "propagation" in options:
            mount = replace(mount, propagation=options["propagation"].text())
    if "volume" in fields:
        options = read("volume", keys.MOUNTED_VOLUME)
        mount = replace(mount, copy="nocopy" not in options or not options["nocopy"].boolean())
        if "subpath" in options:
            mount = replace(mount, subpath=_checked_subpath(options["subpath"]))
    if "image" in fields:
        options = read("image", keys.MOUNTED_IMAGE)
        mount = replace(mount, subpath=_checked_subpath(options["subpath"]) if "subpath" in options else "")
    if "tmpfs" in fields:
        options = read("tmpfs", keys.MOUNTED_TMPFS)
        mount = replace(
            mount,
            size_bytes=read_bytes(options["size"]) if "size" in options else None,
            mode=read_mode(options["mode"]) if "mode" in options else None,
        )
    return mount


def _checked_subpath(value: Value) -> str:
    text = value.text("a path within it")
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        value.report(f"is {quote(text)}", "a path within it")
        return ""
    return text


def read_mode(value: Value) -> int:
    """Return permissions: in quotes they are octal, a number is what YAML reads (``0444`` and ``0o444`` are octal)."""
    printed = value.printed("permissions such as 0444")
    quoted = isinstance(value.node, Scalar) and value.node.kind == "str"
    form = r"(?:0o)?([0-7]{1,5})" if quoted else r"([0-9]{1,5})"
    match = re.fullmatch(form, printed)
    number = int(match[1], 8 if quoted else 10) if match else -1
    if not 0 <= number <= 0o7777:
        value.report(f"is {quote(printed)}", "permissions such as 0444")
        return 0o444
    return number


def read_files(value: Value, folder: str, service: str, notes: Notes) -> Iterator[tuple[FileMount, Value]]:
    """Yield the secrets or configs that a service gets, each with where it stands; without a target of its own each is
    in ``folder`` by its name."""
    for item in value.items():
        if not item.is_mapping:
            name = item.text("a name")
            yield FileMount(name, _checked_target(item, f"{folder}/{name}")), item
            continue
        fields = keys.GRANT.read(item, notes, service)
        source = require(fields, "source", item, "its name")
        name = source.text("a name") if not source.is_null else ""
        target = fields["target"].text("a path in the container") if "target" in fields else name
        yield (
            FileMount(
                name,
                _checked_target(item, target if target.startswith("/") else f"{folder}/{target}"),
                fields["uid"].text("a user") if "uid" in fields else "",
                fields["gid"].text("a group") if "gid" in fields else "",
                read_mode(fields["mode"]) if "mode" in fields else None,
            ),
            item,
        )
