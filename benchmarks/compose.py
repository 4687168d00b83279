"""How many public compose files are read as scenarios, and start as containers, and why the others do not.

    .venv/bin/python benchmarks/compose.py DIRECTORY [--fetch] [--complete] [--start [--limit S]] [--only WORD] [--json]

`benchmarks/compose.csv` lists the files: repository, path, commit, and git's name of the content that was tried, none
for those that were not at hand. With --fetch git brings each repository at its commit into DIRECTORY first. Of an index
of public repositories they are the first 30 with a `compose.db.yml`, all of `docker/awesome-compose` that are called
`compose.yaml`, and some of other names and of well-known projects. With --complete, what a file names beside itself and
what is not there is made, in a copy: folders with an empty Dockerfile, files of variables with the passwords that
databases ask for, empty secrets and mounts, values of variables; for where only the compose files are at hand. Mistakes
are counted by key, names of services left out. With --start, as root, those whose images can be had are brought up and
down again, one after the other (benchmarks/compose_start.py).
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct  # noqa: E402

from benchmarks.command import perform  # noqa: E402
from benchmarks.compose_start import Start, start  # noqa: E402
from benchmarks.public_files import Listed, add_options, try_each  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from testbed.scenario.model import Scenario, load  # noqa: E402

LIST = Path(__file__).with_suffix(".csv")
# Rounds of making what is missing: what was hidden by a mistake shows in the next.
_ROUNDS = 4
_LONGEST_REASON = 300
_MISSING_FOLDER = re.compile(r": there is no folder '([^']*)'")
_MISSING_FILE = re.compile(r": there is no file '([^']*)'(?! beside this one)")
_MISSING_ENVIRONMENT = re.compile(r": there is no file '([^']*)' beside this one")
_VARIABLE = re.compile(r"(?<!\$)\$(?:\{(\w+)(?::?\?[^}]*)?\}|(\w+))")
# One that is a path on the host, or begins one.
_SOURCE = re.compile(r"""(?m)^\s*- ["']?\$\{(\w+)\}[^:\n]*:/""")
_FIRST_PORT = 21000
_MISSING_VARIABLE = re.compile(r": needs the variable (\w+)")
_MISSING_DOCKERFILE = re.compile(r": there is no '([^']*)' in (/[^;]*)")

_MISSING = (_MISSING_FOLDER, _MISSING_FILE, _MISSING_ENVIRONMENT, _MISSING_DOCKERFILE, _MISSING_VARIABLE)
# Without such a variable the databases' official images do not start.
_ASKED_FOR = "POSTGRES_PASSWORD=value\nMARIADB_ROOT_PASSWORD=value\nMYSQL_ROOT_PASSWORD=value\n"


class Read(Struct, frozen=True):
    """What came of one: its services and the seconds that reading took, or the reasons for which it is refused; and of
    its start, if that was asked for."""

    file: str
    services: int = 0
    seconds: float = 0.0
    asked: str = ""
    reasons: tuple[str, ...] = ()
    start: Start | None = None


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
    for missing, content in ((_MISSING_FILE, ""), (_MISSING_ENVIRONMENT, _ASKED_FOR)):
        for name in missing.findall(message):
            path = Path(file.parent, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return any(one.search(message) for one in _MISSING)


def invent_variables(file: Path) -> dict[str, str]:
    """Return a value for each variable that a file names without a default: a port's number where it looks like one, a
    folder beside the file where a mount begins with it."""
    text = file.read_text(errors="replace")
    names = dict.fromkeys(match[1] or match[2] for match in _VARIABLE.finditer(text))
    values = {name: str(_FIRST_PORT + number) if "PORT" in name else "value" for number, name in enumerate(names)}
    return values | dict.fromkeys(_SOURCE.findall(text), "./value")


def make_mounted(file: Path, scenario: Scenario) -> None:
    """Make the empty files beside a compose file that its services mount, by names that look like those of files."""
    for mount in (mount for service in scenario.services for mount in service.mounts if mount.kind == "bind"):
        source = Path(mount.source)
        if source.is_relative_to(file.parent) and source.suffix and not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            source.touch()


def simplify(line: str) -> str:
    """Return a mistake without file, line, and the names of services."""
    text = re.sub(r"^.*?:\d+: ", "", line)
    text = re.sub(r"^(services|networks|volumes|secrets|configs)\.[^:]*?(\.[a-z_.]+|)(\[\d+\])?: ", r"\1.*\2: ", text)
    return re.sub(r"'[^']*'", "'...'", text.partition("; expected")[0])


def read(file: Path, name: str, *, completing: bool, project: str = "", limit_s: float = 0.0) -> Read:
    """Read one file as a scenario, and start it as ``project`` if that has a name."""
    message, variables = "", invent_variables(file) if completing else {}
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
        if completing:
            make_mounted(file, scenario)
        begun = start(file, scenario, project, variables, limit_s) if project else None
        return Read(name, len(scenario.services), took_s, asked, start=begun)
    return Read(name, reasons=tuple(dict.fromkeys(map(simplify, message.splitlines()))))


def read_all(
    listed: Sequence[Listed], directory: Path, *, completing: bool, starting: bool, limit_s: float
) -> Iterator[Read]:
    """Read those files of a list that are in a directory, in a copy, which is completed if that is asked for."""
    with tempfile.TemporaryDirectory(prefix="compose-", dir="/var/tmp") as scratch:
        copy = Path(scratch, "corpus")
        shutil.copytree(directory, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        there = [one for one in listed if Path(copy, one.repository, one.path).is_file()]
        for number, one in enumerate(there):
            file = Path(copy, one.repository, one.path)
            project = f"corpus{number}" if starting else ""
            yield read(file, f"{one.repository}/{one.path}", completing=completing, project=project, limit_s=limit_s)


def describe(one: Read) -> str:
    """Return a file's line."""
    if one.reasons:
        return f"refused      {one.file}  {'; '.join(one.reasons)}"
    if one.start is None:
        return f"accepted     {one.file}  {one.asked}"
    if one.start.missing:
        return f"no image     {one.file}  {', '.join(one.start.missing)}"
    if one.start.reason:
        return f"not started  {one.file}  {' '.join(one.start.reason.split())[:_LONGEST_REASON]}"
    return f"started      {one.file}  {one.asked}, {one.start.seconds:.1f} s"


def summarise(results: Sequence[Read], listed: int) -> list[str]:
    """Return how many files were accepted and started, and the reasons against the others by how often they occur."""
    accepted = [one for one in results if not one.reasons]
    lines = [f"{len(accepted)} of {len(results)} accepted ({listed} listed)"]
    if accepted:
        lines.append(f"the slowest was read in {1e3 * max(one.seconds for one in accepted):.1f} ms")
    tried = [one.start for one in accepted if one.start is not None]
    if tried:
        startable = [one for one in tried if not one.missing]
        started = [one for one in startable if not one.reason]
        lines.append(f"{len(startable)} of them have images that can be had, {len(started)} of these started")
    reasons = Counter(reason for one in results for reason in one.reasons)
    return [*lines, *(f"{count:5}  {reason}" for reason, count in reasons.most_common())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    add_options(parser)
    parser.add_argument("--complete", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds in which an application is to be ready")
    options = parser.parse_args()
    try_each(
        LIST,
        options,
        lambda listed: read_all(
            listed, options.directory, completing=options.complete, starting=options.start, limit_s=options.limit
        ),
        describe,
        summarise,
    )


if __name__ == "__main__":
    perform(main)
