"""The tasks on writable roots of containers: roots create, snapshot, clone, rollback, promote, diff, commit, run."""

from __future__ import annotations

import json as json_module
import shlex
from typing import TYPE_CHECKING

from invoke import Context, task
from msgspec import to_builtins

from reports.commands.exits import reporting
from runtime.errors import UsageError
from runtime.output import printable
from testbed.progress import print_progress

if TYPE_CHECKING:
    from runtime.roots.store import RootStore

_NAME = {"name": "the root"}
_SIGNS = {"added": "A", "changed": "C", "removed": "D"}
_BOTH = {"name": "the root", "snapshot": "the snapshot's name"}
_JSON = {"json": "print as JSON on standard output"}


def _store() -> RootStore:
    from runtime.home import store_root
    from runtime.images.store import Store
    from runtime.roots.store import RootStore

    home = store_root()
    return RootStore(home, Store(home / "images"))


@task(name="list", help=_JSON)
@reporting
def list_all(context: Context, json: bool = False) -> int:
    """List the roots with their images, origins and snapshots."""
    roots = _store().read().roots
    if json:
        print(json_module.dumps(to_builtins(roots), indent=2))
        return 0
    for root in roots:
        origin = f", cloned from {root.origin}" if root.origin else ""
        print(printable(f"{root.name}: of {root.image}{origin}"))
        for snapshot in root.snapshots:
            print(printable(f"  {root.name}@{snapshot.name}"))
    return 0


@task(positional=["name", "image"], help={**_NAME, "image": "an image in the store"})
@reporting
def create(context: Context, name: str, image: str) -> int:
    """Make a writable root of an image."""
    store = _store()
    store.create(name, store.images.get(image))
    return 0


@task(positional=["name", "snapshot"], help=_BOTH)
@reporting
def snapshot(context: Context, name: str, snapshot: str) -> int:
    """Give the root's present state a name; nothing is copied."""
    _store().snapshot(name, snapshot)
    return 0


@task(
    positional=["name", "clone"],
    help={
        "name": "NAME@SNAPSHOT, or NAME as it is now",
        "clone": "the new root",
        "driver": "overlay: above the same layers (default); copy: all files copied into a layer of its own",
    },
)
@reporting
def clone(context: Context, name: str, clone: str, driver: str = "overlay") -> int:
    """Make a root that begins as another one is; nothing is copied."""
    if driver not in ("overlay", "copy"):
        raise UsageError(f"--driver {driver}: there is no such way to clone", "overlay or copy")
    store = _store()
    store.clone(name, clone)
    if driver == "copy":
        store.flatten(clone)
    print(f"driver: {driver}")
    return 0


@task(positional=["name", "snapshot"], help=_BOTH)
@reporting
def rollback(context: Context, name: str, snapshot: str) -> int:
    """Make the root what its snapshot is; what was written since, and is in no snapshot, is gone."""
    _store().rollback(name, snapshot)
    return 0


@task(positional=["name"], help=_NAME)
@reporting
def promote(context: Context, name: str) -> int:
    """Have a clone take over the snapshots that it came from, so that its origin can be removed."""
    _store().promote(name)
    return 0


@task(positional=["name"], help=_NAME)
@reporting
def flatten(context: Context, name: str) -> int:
    """Copy all of a root into one layer of its own."""
    _store().flatten(name)
    return 0


@task(
    positional=["name"],
    help={"name": "NAME or NAME@SNAPSHOT", "against": "another NAME[@SNAPSHOT] (default: its image)", **_JSON},
)
@reporting
def diff(context: Context, name: str, against: str = "", json: bool = False) -> int:
    """List what was added (A), changed (C) and deleted (D)."""
    differences = _store().differences(name, against)
    if json:
        print(json_module.dumps(to_builtins(differences), indent=2))
        return 0
    for one in differences:
        print(printable(f"{_SIGNS[one.kind]} {one.path}"))
    return 0


@task(positional=["name", "image"], help={"name": "NAME or NAME@SNAPSHOT", "image": "the new image's name"})
@reporting
def commit(context: Context, name: str, image: str) -> int:
    """Make an image of a root."""
    made = _store().commit(name, image, print_progress)
    print(f"{made.reference}: {made.id}, {len(made.layers)} layers")
    return 0


@task(positional=["name"], help={"name": "NAME with its snapshots, or NAME@SNAPSHOT"})
@reporting
def rm(context: Context, name: str) -> int:
    """Remove a root or a snapshot, unless clones come from it."""
    _store().remove(name)
    return 0


@task(
    positional=["name", "directory"],
    help={**_NAME, "directory": "where it is mounted", "driver": "overlay, fuse-overlayfs, or auto", **_JSON},
)
@reporting
def mount(context: Context, name: str, directory: str, driver: str = "auto", json: bool = False) -> int:
    """Mount a root, for a bundle of another runtime; union umount ends that."""
    from reports.commands.unions import print_result
    from runtime.unionfs import unions

    store = _store()
    with store.held() as roots:
        return print_result(unions.mount(str(store.union(roots.get(name))), directory, driver), json)


@task(
    positional=["name"],
    help={**_NAME, "command": "in place of the image's own, as a shell splits it", "host-network": "no own network"},
)
@reporting
def run(context: Context, name: str, command: str = "", host_network: bool = False) -> int:
    """Run a container on a root; its exit status becomes that of the task."""
    from runtime.roots.running import run as run_on_root

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command}: {error}") from error
    return run_on_root(_store(), name, words, host_network)
