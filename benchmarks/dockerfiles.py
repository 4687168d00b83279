"""How many public Dockerfiles are read, as an independent parser reads them, and build, and why the others do not.

    .venv/bin/python benchmarks/dockerfiles.py DIRECTORY [--fetch] [--only WORD] [--json]
        [--build] [--limit S] [--buildah]

`benchmarks/dockerfiles.csv` lists the files: repository, path, commit, and git's name of the content that was tried.
With --fetch git brings each repository at its commit into DIRECTORY first. They were taken from an index of public
repositories before any was read: those that it listed first with a `Dockerfile` (99), a `docker/Dockerfile` (58) and a
`backend/Dockerfile` (25), and 23 of well-known projects by their names, of at most 4,600 characters each. Each is read
by ours and by the package `dockerfile` (benchmarks/independent_parser.py), and its stages are planned. With --build, as
root, those whose images can be had are built, one after the other, in a copy (benchmarks/dockerfile_build.py says what
stands in for what). With --buildah it builds them, too, on the same images, and both results are compared.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct  # noqa: E402

from benchmarks.command import perform  # noqa: E402
from benchmarks.dockerfile_build import Built, build_file, list_missing  # noqa: E402
from benchmarks.dockerfile_peer import Peer  # noqa: E402
from benchmarks.dockerfile_reasons import explain  # noqa: E402
from benchmarks.independent_parser import as_theirs, read_by_theirs  # noqa: E402
from benchmarks.public_files import Listed, add_options, try_each  # noqa: E402
from runtime.builder.dockerfile import Dockerfile, read  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from runtime.images.store import open_store  # noqa: E402

LIST = Path(__file__).with_suffix(".csv")
_LONGEST_REASON = 300
_MOST_SHOWN = 12


class Read(Struct, frozen=True):
    """What came of one: its instructions, or the reason for which it is refused; how the other parser reads it
    otherwise, "" where it does not; the images that cannot be had; and of its build, if that was asked for."""

    file: str
    instructions: int = 0
    reason: str = ""
    differs: str = ""
    missing: tuple[str, ...] = ()
    built: Built | None = None


def compare(file: Dockerfile, text: str) -> str:
    """Return in which line, and how, the other parser reads a file otherwise; "" where it reads the same."""
    ours = [as_theirs(one) for one in file.instructions]
    try:
        theirs = read_by_theirs(text)
    except ValueError as error:
        return f"refused there: {error}"
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            return f"line {one['line']}: {one} there {other}"
    return "" if len(ours) == len(theirs) else f"{len(ours)} instructions, there {len(theirs)}"


def context_of(copy: Path, one: Listed) -> Path:
    """Return a file's build context: its own folder, or the repository for one in a folder that is called docker."""
    folder = Path(copy, one.repository, one.path).parent
    return folder.parent if folder.name == "docker" else folder


def read_one(copy: Path, one: Listed, *, building: bool, limit_s: float, peer: Peer | None = None) -> Read:
    """Read a file, and build it if that is asked for and can be, by a ``peer``, too."""
    path, name = Path(copy, one.repository, one.path), f"{one.repository}/{one.path}"
    try:
        file = read(path, path.parent)
        missing = list_missing(open_store(), file)
    except UsageError as error:
        return Read(name, reason=re.sub(r"^.*?:(?=\d+: )", "line ", error.message))
    differs = compare(file, path.read_bytes().decode(errors="surrogateescape"))
    wanted = building and not missing
    built = build_file(open_store(), file, context_of(copy, one), limit_s, peer) if wanted else None
    return Read(name, len(file.instructions), "", differs, missing, built)


def read_all(
    listed: Sequence[Listed], directory: Path, *, building: bool, limit_s: float, beside: bool = False
) -> Iterator[Read]:
    """Read those files of a list that are in a directory, in a copy; ``beside`` buildah, if they are built."""
    with tempfile.TemporaryDirectory(prefix="dockerfiles-", dir="/var/tmp") as scratch:
        copy = Path(scratch, "corpus")
        shutil.copytree(directory, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        peer = Peer(Path(scratch), open_store()) if beside else None
        try:
            for one in listed:
                if Path(copy, one.repository, one.path).is_file():
                    yield read_one(copy, one, building=building, limit_s=limit_s, peer=peer)
        finally:
            if peer is not None:
                peer.close()


def describe(one: Read) -> str:
    """Return a file's line."""
    if one.reason:
        return f"refused    {one.file}  {one.reason}"
    if one.differs:
        return f"differs    {one.file}  {one.differs}"
    if one.built is None:
        return f"read       {one.file}  {', '.join(one.missing)}"
    if one.built.reason:
        what = "RUN failed" if one.built.run_failed else "not built"
        said = " ".join(one.built.reason.split())[:_LONGEST_REASON]
        return f"{what:<10} {one.file}  {explain(one.built.reason)}: {said}"
    line = f"built      {one.file}  {one.built.seconds:.1f} s, {one.built.made} things made"
    if (beside := one.built.beside) is None:
        return line
    if beside.reason:
        return f"{line}, not by buildah: {beside.reason}"
    others = [f"           {what[:_LONGEST_REASON]}" for what in beside.differs[:_MOST_SHOWN]]
    return "\n".join((f"{line}, {len(beside.differs)} of {beside.count} files and members not as buildah's", *others))


def summarise(results: Sequence[Read], listed: int) -> list[str]:
    """Return how many files were read, alike, and built, and which images the others lack, by how often they occur."""
    there = [one for one in results if not one.reason]
    alike = [one for one in there if not one.differs]
    lines = [f"{len(there)} of {len(results)} read, {len(alike)} as the other parser reads them ({listed} listed)"]
    possible = [one for one in there if not one.missing]
    lines.append(f"{len(possible)} of them stand on images that can be had")
    if tried := [one.built for one in possible if one.built]:
        built = sum(not one.reason for one in tried)
        failed = sum(one.run_failed for one in tried)
        lines.append(f"{built} built; in {failed} a RUN failed; {len(tried) - built - failed} ended otherwise")
        if compared := [one.beside for one in tried if one.beside]:
            absent, others = sum(bool(one.reason) for one in compared), sum(bool(one.differs) for one in compared)
            same = len(compared) - others - absent
            lines.append(f"{same} are as buildah has them, {others} are not, {absent} buildah has not built")
        reasons = Counter(explain(one.reason) for one in tried if one.reason)
        lines += ["of those that were not built", *(f"{count:5}  {reason}" for reason, count in reasons.most_common())]
    names = Counter(name.partition(":")[0].partition("@")[0] for one in there for name in one.missing)
    return [*lines, "images that cannot be had:", *(f"{count:5}  {name}" for name, count in names.most_common(15))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    add_options(parser)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--buildah", action="store_true", help="build with buildah, too, and compare")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that a build may take")
    options = parser.parse_args()
    try_each(
        LIST,
        options,
        lambda listed: read_all(
            listed,
            options.directory,
            building=options.build or options.buildah,
            limit_s=options.limit,
            beside=options.buildah,
        ),
        describe,
        summarise,
    )


if __name__ == "__main__":
    perform(main)
