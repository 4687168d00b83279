"""The tasks on union mounts, in AUFS's own words: union mount, add, del, mod, refresh, which, list, umount."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from typing import TYPE_CHECKING

from invoke import Context, task
from msgspec import to_builtins

from reports.commands.exits import reporting
from runtime.output import printable

if TYPE_CHECKING:
    from runtime.unionfs.branches import Union
    from runtime.unionfs.unions import Result

_JSON = {"json": "print as JSON on standard output"}
_HOW = {
    "first": "",
    "beneath": "; attached beneath the old one, which is gone when its last file is closed",
    "above": "; attached above the old one, which stays below it: this kernel mounts nothing beneath (Linux 6.5 does)",
}


def print_result(result: Result, as_json: bool) -> int:
    """Print what became of a union; return the exit code."""
    if as_json:
        print(json_module.dumps(to_builtins(result), indent=2))
        return 0
    print(printable(f"{result.target}: {result.union}"))
    print(printable(f"driver: {result.driver} ({result.detail}){_HOW[result.attached]}"))
    for reason in result.passed_over:
        print(printable(f"not {reason}"))
    return 0


def _change(change: Callable[[Union, str], Union], words: str, directory: str, as_json: bool) -> int:
    from runtime.unionfs import unions

    return print_result(unions.change(directory, lambda union: change(union, words)), as_json)


@task(
    positional=["branches", "directory"],
    help={
        "branches": "br:/a=rw:/b=ro, the topmost first; with several rw, behind it: ,create=tdp|mfs|pmfs|rand",
        "directory": "where it is mounted",
        "driver": "overlay, fuse-overlayfs, mergerfs, copy, aufs, or auto for the best that works",
        **_JSON,
    },
)
@reporting
def mount(context: Context, branches: str, directory: str, driver: str = "auto", json: bool = False) -> int:
    """Mount a union of directories: reads see all of them, writes go to the ones that are rw."""
    from runtime.unionfs import unions

    return print_result(unions.mount(branches, directory, driver), json)


@task(
    positional=["branch", "directory"],
    help={
        "branch": "DIR=ro below all others, or INDEX:DIR=ro, append:DIR, prepend:DIR=rw",
        "directory": "the union",
        **_JSON,
    },
)
@reporting
def add(context: Context, branch: str, directory: str, json: bool = False) -> int:
    """Add a branch to a union that is in use."""
    from runtime.unionfs import branches

    return _change(branches.add, branch, directory, json)


@task(name="del", positional=["branch", "directory"], help={"branch": "its path", "directory": "the union", **_JSON})
@reporting
def delete(context: Context, branch: str, directory: str, json: bool = False) -> int:
    """Take a branch from a union that is in use; files that are open in it stay open."""
    from runtime.unionfs import branches

    return _change(branches.delete, branch, directory, json)


@task(positional=["branch", "directory"], help={"branch": "DIR=ro or DIR=rw", "directory": "the union", **_JSON})
@reporting
def mod(context: Context, branch: str, directory: str, json: bool = False) -> int:
    """Change a branch's permission; rw becomes ro only while no file is open for writing."""
    from runtime.unionfs import branches

    return _change(branches.modify, branch, directory, json)


@task(positional=["directory"], help={"directory": "the union", **_JSON})
@reporting
def refresh(context: Context, directory: str, json: bool = False) -> int:
    """Show what was changed in the branches themselves, beneath the union."""
    from runtime.unionfs import unions

    return print_result(unions.change(directory, lambda union: union), json)


@task(positional=["file"], help={"file": "a path in a union", **_JSON})
@reporting
def which(context: Context, file: str, json: bool = False) -> int:
    """Say from which branch a file of a union comes; exit 1 when none has it."""
    from runtime.unionfs import unions

    location = unions.which(file)
    if json:
        print(json_module.dumps(to_builtins(location), indent=2))
    else:
        print(printable(f"{location.branch}: {location.path}" if location.branch else f"no branch has {location.file}"))
        for branch in location.deleted_in:
            print(printable(f"deleted in {branch}"))
        for branch in location.also_in:
            print(printable(f"also in {branch}"))
        print(printable(f"driver: {location.driver}"))
        if location.differs:
            print(printable(f"note: {location.differs}; ./invoke union refresh DIR shows the branches as they are"))
    return 0 if location.branch else 1


@task(name="list", help=_JSON)
@reporting
def list_all(context: Context, json: bool = False) -> int:
    """List the unions that are mounted, with the driver of each."""
    from runtime.unionfs.records import Records

    there = [(record.target, record.generation()) for record in Records().here()]
    if json:
        document = [
            {"target": target, "union": str(one.union), "driver": one.driver, "detail": one.detail}
            for target, one in there
        ]
        print(json_module.dumps(document, indent=2))
    else:
        for target, one in there:
            print(printable(f"{target}: {one.union}, driver {one.driver} ({one.detail})"))
    return 0


@task(
    positional=["directory"],
    help={"directory": "the union", "lazy": "also while it is in use: files that are open stay so"},
)
@reporting
def umount(context: Context, directory: str, lazy: bool = False) -> int:
    """Unmount a union and remove what its driver needed; the branches stay."""
    from runtime.unionfs import unions

    unions.unmount(directory, lazy)
    return 0
