"""What an image consists of, as lines and values that can be set beside those of an image made elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.buildah import Buildah
from runtime.builder.context import attributes
from runtime.images.model import Image
from runtime.images.store import Store

# Members that say the same when they are missing, null or empty.
MEMBERS = (
    *("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels", "StopSignal"),
    *("Healthcheck", "OnBuild", "Shell"),
)


_ITS_LABEL = ("io.buildah.version",)


def compare_images(
    store: Store, image: Image, buildah: Buildah, ours: str, theirs: str, is_left_out: Callable[[str], bool]
) -> tuple[int, dict[str, str]]:
    """Return how many files and members of the configuration an image of ours and one of buildah's have, and by name
    which differ. buildah has ours as ``ours``, and shows the files of both; ``is_left_out`` says which do not count."""
    members = describe_config(json.loads(store.layout.read(image.id, image.reference))["config"])
    their_members = describe_config(buildah.config(theirs), _ITS_LABEL)
    with buildah.mounted(ours) as root, buildah.mounted(theirs) as other:
        files, their_files = describe_tree(root, is_left_out), describe_tree(other, is_left_out)
    count = len(members.keys() | their_members.keys()) + len(files.keys() | their_files.keys())
    return count, list_differences(members, their_members) | list_differences(files, their_files)


def describe_file(path: Path) -> str:
    """Return all that a file is, but for its name and times: type, permissions, owners, content, attributes."""
    status = path.lstat()
    kind, owner = status.st_mode, f"{status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(kind):
        content = f"-> {os.readlink(path)}"
    elif stat.S_ISREG(kind):
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    else:
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if status.st_rdev else ""
    kept = " ".join(f"{name}={value.hex()}" for name, value in attributes(path))
    # A link's permissions are the kernel's.
    permissions = stat.filemode(kind)[0] if stat.S_ISLNK(kind) else f"{stat.filemode(kind)[0]}{stat.S_IMODE(kind):04o}"
    return " ".join(word for word in (permissions, owner, content, kept) if word)


def describe_tree(root: Path, is_left_out: Callable[[str], bool]) -> dict[str, str]:
    """Return the description of each path below ``root``, by its name from there on; "/" is the root's own."""
    found = {"/": describe_file(root)}
    levels = [root]
    while levels:
        with os.scandir(levels.pop()) as items:
            for item in items:
                name = f"/{Path(item.path).relative_to(root)}"
                if is_left_out(name):
                    continue
                found[name] = describe_file(Path(item.path))
                if item.is_dir(follow_symlinks=False):
                    levels.append(Path(item.path))
    return found


def describe_config(config: Mapping[str, Any], labels_left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the members of a configuration that say something; variables are by name, for their order says nothing."""
    said = {name: config[name] for name in MEMBERS if config.get(name)}
    if directory := said.get("WorkingDir", "").rstrip("/"):  # buildah keeps the slash, which says nothing
        said["WorkingDir"] = directory
    if "Env" in said:
        said["Env"] = dict(entry.partition("=")[::2] for entry in said["Env"])
    if labels := {name: text for name, text in said.pop("Labels", {}).items() if name not in labels_left_out}:
        said["Labels"] = labels
    return said


def list_differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, str]:
    """Return by name what differs, as ``ours, theirs``."""
    names = sorted(ours.keys() | theirs.keys())
    return {
        name: f"{ours.get(name, 'absent')} there {theirs.get(name, 'absent')}"
        for name in names
        if ours.get(name) != theirs.get(name)
    }
