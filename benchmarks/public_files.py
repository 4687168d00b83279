"""Lists of public files, by which others can have the same: repository, path and commit, in a CSV file."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

HOST = "https://github.com"


class Listed(Struct, frozen=True):
    """A public file."""

    repository: str
    path: str
    commit: str


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
