"""How many public compose files are read as scenarios, and why the others are refused.

    .venv/bin/python benchmarks/compose.py DIRECTORY [--fetch] [--complete] [--json]

`benchmarks/compose.csv` lists the files: repository, path and commit. With --fetch git brings each repository at its
commit into DIRECTORY first. With --complete, what a file names beside itself and what is not there is made, in a copy:
folders with an empty Dockerfile, empty files of variables and of secrets, variables that must have a value; for where
only the compose files are at hand. Mistakes are counted by key, names of services left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct, to_builtins  # noqa: E402

from runtime.errors import UsageError  # noqa: E402
from testbed.scenario.model import load  # noqa: E402

LIST = Path(__file__).with_suffix(".csv")
HOST = "https://github.com"
# Rounds of making what is missing: what was hidden by a mistake shows in the next.
_ROUNDS = 4
_MISSING_FOLDER = re.compile(r": there is no folder '([^']*)'")
_MISSING_FILE = re.compile(r": there is no file '([^']*)'")
_MISSING_VARIABLE = re.compile(r": needs the variable (\w+)")
_MISSING_DOCKERFILE = re.compile(r": there is no '([^']*)' in (/[^;]*)")

_MISSING = (_MISSING_FOLDER, _MISSING_FILE, _MISSING_DOCKERFILE, _MISSING_VARIABLE)


class Listed(Struct, frozen=True):
    """A public compose file."""

    repository: str
    path: str
    commit: str


class Read(Struct, frozen=True):
    """What came of one: its services and the seconds that reading took, or the reasons for which it is refused."""

    file: str
    services: int = 0
    seconds: float = 0.0
    asked: str = ""
    reasons: tuple[str, ...] = ()


def read_list() -> tuple[Listed, ...]:
    """Return the files of the list."""
    with LIST.open(newline="") as stream:
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


def complete(file: Path, message: str) -> bool:
    """Make what a message says is missing beside a file; whether there was something of the kind."""
    for name in _MISSING_FOLDER.findall(message):
        folder = Path(file.parent, name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").touch()
    for name, folder_name in _MISSING_DOCKERFILE.findall(message):
        dockerfile = Path(folder_name, name)
        dockerfile.parent.mkdir(parents=True, exist_ok=True)
        dockerfile.touch()
    for name in _MISSING_FILE.findall(message):
        path = Path(file.parent, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return any(one.search(message) for one in _MISSING)


def simplify(line: str) -> str:
    """Return a mistake without file, line, and the names of services."""
    text = re.sub(r"^.*?:\d+: ", "", line)
    text = re.sub(r"^(services|networks|volumes|secrets|configs)\.[^:]*?(\.[a-z_.]+|)(\[\d+\])?: ", r"\1.*\2: ", text)
    return re.sub(r"'[^']*'", "'...'", text.partition("; expected")[0])


def read(file: Path, name: str, *, completing: bool) -> Read:
    """Read one file as a scenario."""
    message, variables = "", dict[str, str]()
    for _ in range(_ROUNDS if completing else 1):
        began_s = time.perf_counter()
        try:
            scenario = load(str(file), file.parent, environment=variables)
        except UsageError as error:
            message = error.message
            variables |= dict.fromkeys(_MISSING_VARIABLE.findall(message) if completing else (), "value")
            if completing and complete(file, message):
                continue
            break
        took_s = time.perf_counter() - began_s
        ready = scenario.settings.ready
        asked = f"{ready.service}:{ready.port}{ready.path}" if ready.service else "nothing"
        return Read(name, len(scenario.services), took_s, asked)
    return Read(name, reasons=tuple(dict.fromkeys(map(simplify, message.splitlines()))))


def read_all(listed: Sequence[Listed], directory: Path, *, completing: bool) -> list[Read]:
    """Read those files of a list that are in a directory, as they are or in a copy that is completed."""
    if not completing:
        files = [(directory / one.repository / one.path, f"{one.repository}/{one.path}") for one in listed]
        return [read(file, name, completing=False) for file, name in files if file.is_file()]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "corpus")
        shutil.copytree(directory, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        files = [(copy / one.repository / one.path, f"{one.repository}/{one.path}") for one in listed]
        return [read(file, name, completing=True) for file, name in files if file.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--complete", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    listed = read_list()
    if options.fetch:
        fetch(listed, options.directory)
    results = read_all(listed, options.directory, completing=options.complete)
    if options.json:
        print(json.dumps(to_builtins(results), indent=1))
        return
    accepted = [one for one in results if not one.reasons]
    for one in results:
        print(f"{'accepted' if not one.reasons else 'refused ':8}  {one.file}  {one.asked or '; '.join(one.reasons)}")
    print(f"\n{len(accepted)} of {len(results)} accepted ({len(listed)} listed)")
    if accepted:
        print(f"the slowest in {1e3 * max(one.seconds for one in accepted):.1f} ms")
    for reason, count in Counter(reason for one in results for reason in one.reasons).most_common():
        print(f"{count:5}  {reason}")


if __name__ == "__main__":
    main()
