"""Whether each instruction makes what buildah makes of it, file by file and member by member of the configuration.

    sudo .venv/bin/python benchmarks/dockerfile_semantics.py [--only WORD] [--json]

`benchmarks/dockerfile_cases/` has a Dockerfile for each part of Docker's reference, which stands on a base of busybox
and copies of a context that `dockerfile_context.py` makes; in `refused.txt` every line is one that both have to refuse.
Both builders start from the same bytes, and buildah shows the files of both images, ours from the archive that the
store saves. All that a file is counts but its times. Where buildah does otherwise than BuildKit, whose frontend is the
reference, a comment in the file names what differs and why; a difference that none names counts as ours, and so does a
named one that is not there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.buildah import Buildah  # noqa: E402
from benchmarks.command import perform  # noqa: E402
from benchmarks.dockerfile_context import BASE, make_base, make_context  # noqa: E402
from benchmarks.image_contents import compare_images  # noqa: E402
from runtime.builder.build import build  # noqa: E402
from runtime.errors import PrerequisiteError, TestbedError, WorkloadError  # noqa: E402
from runtime.images.store import Store  # noqa: E402

CASES = Path(__file__).with_name("dockerfile_cases")
REFUSED = CASES / "refused.txt"
# `# differs: /path/*: why`; a path may end in a star.
_NAMED = re.compile(r"# differs: (\S+): (.+)")


class Compared(Struct, frozen=True):
    """What came of a case: how many files and members are the same, what differs as its file says it does, and what
    differs otherwise, by its name; of one that is to be refused, who did not."""

    name: str
    same: int = 0
    named: tuple[str, ...] = ()
    different: tuple[str, ...] = ()


class Bench:
    """Both builders with the base image and a context, below an empty ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context = folder, folder / "context"
        self.store, self.buildah = Store(folder / "store"), Buildah(folder)
        self.context.mkdir()
        (folder / "base").mkdir()
        make_context(self.context)
        make_base(self.store, folder / "base")
        self.buildah.lend(self.store, BASE, BASE)

    def compare(self, dockerfile: Path) -> Compared:
        """Build a file with both and compare the images."""
        name = dockerfile.name.removesuffix(".Dockerfile")
        ours = build(
            self.store, context=self.context, dockerfile=dockerfile, reference=name, progress=lambda line: None
        )
        self.buildah.lend(self.store, name, f"{name}-ours")
        self._build_theirs(dockerfile, f"{name}-theirs")
        count, found = compare_images(self.store, ours, self.buildah, f"{name}-ours", f"{name}-theirs", _is_left)
        return judge(name, count, found, dockerfile.read_text())

    def refuse(self, line: str) -> Compared:
        """Return whether both refuse a line, in which ``;;`` parts instructions; after ``!``, only ours has to."""
        named = line.startswith("! ")
        line = line.removeprefix("! ")
        dockerfile = self.folder / "refused.Dockerfile"
        dockerfile.write_text("\n".join((f"FROM {BASE}", *line.split(" ;; "))) + "\n")
        found = {}
        try:
            build(self.store, context=self.context, dockerfile=dockerfile, reference="x", progress=lambda line: None)
            found["ours"] = "accepted"
        except TestbedError:
            pass
        try:
            self._build_theirs(dockerfile, "refused-theirs")
            found["theirs"] = "accepted"
        except WorkloadError:
            pass
        return judge(line, 1, found, "# differs: theirs: BuildKit refuses it" if named else "")

    def _build_theirs(self, dockerfile: Path, tag: str) -> None:
        ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        rules = ("--ignorefile", str(ignored)) if ignored.exists() else ()
        self.buildah.build(self.context, tag, "--format", "docker", "--file", str(dockerfile), *rules)


def judge(name: str, count: int, found: dict[str, str], text: str) -> Compared:
    """Part differences into those that a Dockerfile's comments name and others."""
    reasons = dict(_NAMED.findall(text))
    named: list[str] = []
    different: list[str] = []
    used: set[str | None] = set()
    for path, what in found.items():
        reason = next((one for one in reasons if _is_named(path, one)), None)
        used.add(reason)
        (different if reason is None else named).append(f"{path}: {what}")
    absent = [f"{one}: named, and the same" for one in reasons if one not in used]
    return Compared(name, count - len(found), tuple(named), (*different, *absent))


def _is_named(path: str, pattern: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _is_left(path: str) -> bool:
    """Return whether a path is none of a Dockerfile's doing: buildah's RUN leaves it."""
    return path in ("/run/.containerenv", "/run/secrets")


def refused_lines() -> list[str]:
    """Return the lines that are to be refused."""
    return [line for line in REFUSED.read_text().splitlines() if line and not line.startswith("#")]


def compare_all(folder: Path, only: str) -> Iterator[Compared]:
    """Compare every case with ``only`` in its name, below an empty folder."""
    bench = Bench(folder)
    try:
        for dockerfile in sorted(CASES.glob("*.Dockerfile")):
            if only in dockerfile.name:
                try:
                    yield bench.compare(dockerfile)
                except TestbedError as error:
                    yield Compared(dockerfile.name.removesuffix(".Dockerfile"), 0, (), (error.message,))
        for line in refused_lines():
            if only in line:
                yield bench.refuse(line)
    finally:
        bench.buildah.remove()


def describe(one: Compared) -> str:
    """Return the lines of a case."""
    head = f"{'differs' if one.different else 'same':<8} {one.name}  {one.same} same"
    head += f", {len(one.named)} as the file says" if one.named else ""
    return "\n".join((head, *(f"         {line[-300:]}" for line in one.different)))


def summarise(results: Sequence[Compared]) -> str:
    """Return how many cases are alike."""
    same = sum(not one.different for one in results)
    things, named = sum(one.same for one in results), sum(len(one.named) for one in results)
    return (
        f"{same} of {len(results)} as buildah has them, or as their files say: {things} files and members the same, "
        f"{named} otherwise as BuildKit has them, {sum(len(one.different) for one in results)} otherwise"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not shutil.which("buildah"):
        raise PrerequisiteError("buildah is not installed", "apt-get install buildah")
    results = []
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as temporary:
        for one in compare_all(Path(temporary), options.only):
            results.append(one)
            print(describe(one), file=sys.stderr if options.json else sys.stdout, flush=True)
    print(json.dumps(to_builtins(results), indent=1) if options.json else f"\n{summarise(results)}")


if __name__ == "__main__":
    perform(main)
