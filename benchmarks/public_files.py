"""Lists of public files, by which others can have the same: repository, path, commit and the name that git gives to the
content, in a CSV file; and the options and the output of programs that try each of a list."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct, to_builtins

HOST = "https://github.com"

T = TypeVar("T")


class Listed(Struct, frozen=True):
    """A public file; its ``blob`` is git's name of what was tried, "" where it was not there."""

    repository: str
    path: str
    commit: str
    blob: str = ""


def read_list(path: Path) -> tuple[Listed, ...]:
    """Return the files of a list."""
    with path.open(newline="") as stream:
        return tuple(Listed(**row) for row in csv.DictReader(stream))


def fetch(listed: Sequence[Listed], directory: Path) -> None:
    """Bring the repositories at their commits, each once."""
    for repository, commit in sorted({(one.repository, one.commit) for one in listed}):
        target = directory / repository
        if target.exists():
            continue
        target.mkdir(parents=True)
        for command in (
            ("init", "-q"),
            ("fetch", "-q", "--depth", "1", f"{HOST}/{repository}", commit),
            ("checkout", "-q", "FETCH_HEAD"),
        ):
            subprocess.run(["git", "-C", str(target), *command], check=True)


def name_blob(content: bytes) -> str:
    """Return the name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def compare_blobs(listed: Sequence[Listed], directory: Path) -> list[str]:
    """Return what is to be said of the contents that are in a directory: which are not those of the list."""
    there = [(one, Path(directory, one.repository, one.path)) for one in listed if one.blob]
    found = [(one, path) for one, path in there if path.is_file()]
    others = [f"{one.repository}/{one.path}" for one, path in found if name_blob(path.read_bytes()) != one.blob]
    return [f"{len(found) - len(others)} have the content that the list names", *(f"another: {one}" for one in others)]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every program that tries a list is told."""
    parser.add_argument("directory", type=Path)
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--only", default="", help="files with this in their repository or path")
    parser.add_argument("--json", action="store_true")


def try_each(
    path: Path,
    options: argparse.Namespace,
    read_all: Callable[[Sequence[Listed]], Iterable[T]],
    describe: Callable[[T], str],
    summarise: Callable[[Sequence[T], int], Sequence[str]],
) -> None:
    """Try the files of a list that are asked for, fetched first if that is. Prints a line each and the summary, or as
    JSON all results."""
    listed = [one for one in read_list(path) if options.only in f"{one.repository}/{one.path}"]
    if options.fetch:
        fetch(listed, options.directory)
    results = []
    for one in read_all(listed):
        results.append(one)
        print(describe(one), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(to_builtins(results), indent=1))
        return
    print("", *summarise(results, len(listed)), *compare_blobs(listed, options.directory), sep="\n")
