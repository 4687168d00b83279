"""Builds of images, by this project and by buildah, in turn on the same contexts.

    sudo .venv/bin/python benchmarks/builds.py [--repeats 3] [--clickme] [--only WORD] [--json]

Each case is built by both with an own store, `buildah build --layers` with its lightest isolation (chroot). "cold" is a
build of which nothing is cached but the base image; "last line" has another last instruction; "unchanged" is that once
more. `files` copies 5,000 small files, `runs` has 20 times RUN true; both stand on busybox. With ``--clickme``, the two
images of that scenario are built, too: their packages come from this host's package sources, which takes minutes.
Times are those of whole commands, in seconds, of which the median counts; `images.build` begins as `./invoke` does,
with an interpreter. "in a process" is the same build by a process that is there already, as `./invoke bench` does it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.buildah import Buildah  # noqa: E402
from benchmarks.command import perform  # noqa: E402
from runtime.builder.build import build  # noqa: E402
from runtime.errors import PrerequisiteError, WorkloadError  # noqa: E402
from runtime.images.base import apt_options, ensure_base  # noqa: E402
from runtime.images.store import Store  # noqa: E402

FILES, RUNS = 5000, 20
_TASK = ("-m", "reports.commands.front", "--search-root", str(ROOT))
OURS, LIBRARY, PEER = "images.build", "in a process", "buildah"


class Case(Struct, frozen=True):
    """A context to be built from ``dockerfile``, whose base image is there before."""

    name: str
    context: Path
    dockerfile: Path


class Figure(Struct, frozen=True):
    """The median of a case's state (cold, last line, unchanged) on one side, with the extremes, in seconds."""

    case: str
    state: str
    side: str
    median_s: float
    least_s: float
    most_s: float


def synthetic(folder: Path) -> list[Case]:
    """Write the contexts of `files` and `runs`."""
    cases = []
    for name, steps in (("files", "COPY files /files\n"), ("runs", "RUN true\n" * RUNS)):
        context = folder / name
        context.mkdir()
        if name == "files":
            for number in range(FILES):
                path = context / "files" / f"{number // 100:02}" / f"{number:04}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{number}\n" * 50)
        (context / "Dockerfile").write_text(f"FROM small\n{steps}")
        cases.append(Case(name, context, context / "Dockerfile"))
    return cases


def clickme(folder: Path) -> list[Case]:
    """Copy the contexts of clickme's two images."""
    cases = []
    for service in ("web", "redis"):
        context = folder / service
        shutil.copytree(ROOT / "scenarios/clickme" / service, context)
        cases.append(Case(f"clickme/{service}", context, context / "Dockerfile"))
    return cases


class Ours:
    """This project's builder, with a store in ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "images")
        self.of_bases: set[str] = set()

    def command(self, case: Case) -> None:
        """Build by the task."""
        words = ["images.build", str(case.context), "--tag", case.name]
        _run([sys.executable, *_TASK, *words], {**os.environ, "TESTBED_HOME": str(self.home)})

    def library(self, case: Case) -> None:
        """Build within this process."""
        build(self.store, context=case.context, dockerfile=case.dockerfile, reference=case.name, progress=_ignore)

    def forget(self) -> None:
        """Forget what steps have made, but for the bases."""
        for path in (self.home / "images" / "cache").iterdir():
            if path.name not in self.of_bases:
                path.unlink()

    def keep(self) -> None:
        """Let what is cached now be the bases'."""
        self.of_bases = {path.name for path in (self.home / "images" / "cache").iterdir()}

    def prepare(self, context: Path) -> None:
        """Make the base of the synthetic cases."""
        build(self.store, context=context, dockerfile=context / "Dockerfile", reference="small", progress=_ignore)


class Theirs:
    """buildah, with its storage in ``home``."""

    def __init__(self, home: Path) -> None:
        self.buildah = Buildah(home)
        self.volumes: list[str] = []

    def command(self, case: Case, tag: str = "") -> None:
        """Build with a cache of its steps."""
        name = tag or case.name.replace("/", "-")
        self.buildah.build(case.context, name, "--layers", *self.volumes)

    def forget(self) -> None:
        """Remove all images but the bases, with what steps have made."""
        listed = self.buildah.run("images", "--all", "--json")
        bases = ("localhost/small:latest", "localhost/testbed/base:latest")
        others = [one["id"] for one in json.loads(listed) if not set(one.get("names") or ()) & set(bases)]
        if others:
            self.buildah.remove(others)

    def prepare(self, context: Path) -> None:
        """Make the base of the synthetic cases."""
        self.command(Case("small", context, context / "Dockerfile"))

    def take(self, root: Path, home: Path) -> None:
        """Take a directory for the base image, with how this host's packages come."""
        options = home / "apt.conf"
        options.write_text("".join(f"{line}\n" for line in apt_options()))
        self.volumes = ["--volume", f"{options}:/etc/apt/apt.conf.d/99testbed-host:ro"]
        (home / "base").mkdir()
        (home / "base/Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        _run(["tar", "--create", "--file", str(home / "base/base.tar"), "--directory", str(root), "."], os.environ)
        self.command(Case("base", home / "base", home / "base/Dockerfile"), "localhost/testbed/base:latest")


def _ignore(_: str) -> None:
    pass


def _run(words: list[str], environment: dict[str, str] | os._Environ[str]) -> str:
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkloadError(f"{' '.join(words)[:300]}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def _seconds(action: Callable[[Case], None], case: Case) -> float:
    began = time.monotonic()
    action(case)
    return time.monotonic() - began


def measure(cases: list[Case], ours: Ours, peer: Theirs, repeats: int) -> list[Figure]:
    """Build every case so often, cold, with another last line and unchanged, with each side in turn."""
    times: dict[tuple[str, str, str], list[float]] = {}
    sides: dict[str, tuple[Callable[[Case], None], Callable[[], None]]] = {
        OURS: (ours.command, ours.forget),
        LIBRARY: (ours.library, ours.forget),
        PEER: (peer.command, peer.forget),
    }
    for number in range(repeats):
        for case in cases:
            text = case.dockerfile.read_text()
            for side, (action, forget) in sides.items():
                forget()
                for state in ("cold", "last line", "unchanged"):
                    # A line of its own for each, so that no layer of the other side or repeat is found.
                    label = f"RUN : {number} {side}\n" if state == "cold" else f"RUN : {number} {side} again\n"
                    case.dockerfile.write_text(text + label)
                    times.setdefault((case.name, state, side), []).append(_seconds(action, case))
            case.dockerfile.write_text(text)
    return [
        Figure(case, state, side, statistics.median(values), min(values), max(values))
        for (case, state, side), values in times.items()
    ]


def show(figures: list[Figure]) -> str:
    """Return the figures as a table, a line for each case and state."""
    lines = [f"{'':<26}{OURS:>16}{LIBRARY:>16}{PEER:>16}"]
    medians = {(one.case, one.state, one.side): one.median_s for one in figures}
    for case, state in dict.fromkeys((one.case, one.state) for one in figures):
        row = "".join(f"{medians[case, state, side]:>14.2f} s" for side in (OURS, LIBRARY, PEER))
        lines.append(f"{f'{case}, {state}':<26}{row}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clickme", action="store_true", help="also the images of clickme, whose packages are fetched")
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not shutil.which("buildah"):
        raise PrerequisiteError("buildah is not installed", "apt-get install buildah")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as temporary:
        folder = Path(temporary)
        small = folder / "small"
        small.mkdir()
        shutil.copy("/bin/busybox", small / "busybox")
        (small / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/true\nENV PATH=/bin\n")
        (folder / "ours").mkdir()
        ours, peer = Ours(folder / "ours"), Theirs(folder)
        for side in (ours, peer):
            side.prepare(small)
        cases = synthetic(folder)
        if options.clickme:
            base = ensure_base(ours.store, lambda line: print(line, file=sys.stderr))
            peer.take(base.layers[0].path, folder)
            cases += clickme(folder)
        ours.keep()
        chosen = [case for case in cases if options.only in case.name]
        figures = measure(chosen, ours, peer, options.repeats)
        peer.buildah.remove()
    print(json.dumps(to_builtins(figures), indent=2) if options.json else show(figures))


if __name__ == "__main__":
    perform(main)
