"""Builds public Dockerfiles, for `benchmarks/dockerfiles.py --build`.

A file can be built where each image that it is made of can be had: it is in the store, has a substitute
(testbed/substitutes), or is a distribution's own, for which testbed/base stands in, whatever its release. What a file
copies of its build context and is not there is made: a file for what looks like one by its name, else a folder with an
empty file; npm's packages have no dependencies and scripts that do nothing, all else is empty. So a RUN that needs the
real files, or a host that is not reached, fails, and counts as such. What is no RUN has to work.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from benchmarks.dockerfile_peer import Beside, Peer
from runtime.builder.build import build, default_resolver, leading_values
from runtime.builder.dockerfile import Dockerfile
from runtime.builder.stages import Resolver, plan_stages
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.images.base import REFERENCE
from runtime.images.model import Image, ImageConfig
from runtime.images.store import Store
from testbed.substitutes.resolving import resolver
from testbed.substitutes.table import find_substitute

# Images that hold a distribution and nothing else that their users count on.
_DISTRIBUTIONS = re.compile(r"(?:(?:docker\.io/)?library/)?(?:debian|ubuntu|buildpack-deps)(?::[\w.-]+)?(?:@.+)?")
_ABSENT = re.compile(r"(?:COPY|ADD) (.*): no such file in the build context ")
_NOTHING = re.compile(r" *nothing to copy: (.+)")
_RUN_FAILED = re.compile(r": RUN .*: exit status \d+", re.DOTALL)
_LOCK = "package-lock.json"
_SCRIPTS = ", ".join(f'"{name}": "true"' for name in ("build", "start", "test", "lint", "postinstall", "prisma"))
_CONTENTS = {
    "package.json": f'{{"name": "made", "version": "1.0.0", "scripts": {{{_SCRIPTS}}}}}\n',
    _LOCK: '{"name": "made", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "made"}}}\n',
}
# Each shows what the one before hid.
_ROUNDS = 12


class Built(Struct, frozen=True):
    """What came of building a file: images that cannot be had, or else the seconds that it took and how many things of
    its context were made; or why it was not built, and whether that is a RUN that ended otherwise than it should;
    and what became of it beside buildah, if that was asked for."""

    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    made: int = 0
    reason: str = ""
    run_failed: bool = False
    beside: Beside | None = None


def stand_in(reference: str) -> str:
    """Return the name of the image that stands in for one, which is its own unless it is a distribution's."""
    return REFERENCE if _DISTRIBUTIONS.fullmatch(reference) else reference


def list_missing(
    store: Store,
    file: Dockerfile,
    target: str = "",
    arguments: Mapping[str, str] = MappingProxyType({}),
    stands_in: Callable[[str], str] = stand_in,
) -> tuple[str, ...]:
    """Return the images that a file's target, "" for the last stage, needs and that cannot be had here, under the names
    that ``stands_in`` gives them. Raises UsageError for stages and arguments that make no sense."""
    missing: list[str] = []

    def look_up(reference: str, platform: str) -> Image | None:
        name = stands_in(reference)
        if name.partition(":")[0] != REFERENCE and find_substitute(name) is None and store.find(name) is None:
            missing.append(reference)
        return Image(reference, "", ImageConfig(), ())

    plan_stages(file, target, leading_values(file, arguments), look_up)
    return tuple(dict.fromkeys(missing))


def build_file(store: Store, file: Dockerfile, context: Path, limit_s: float, peer: Peer | None = None) -> Built:
    """Build a file whose images can be had, in a context in which what is not there is made. The limit is without the
    time that substitutes take, which are made before, and without what a ``peer`` takes to build it, too."""
    made = 0
    plan_stages(file, "", leading_values(file, {}), resolver_of(store))
    began_s = time.monotonic()
    try:
        with _limited(limit_s):
            for _ in range(_ROUNDS):
                try:
                    image = _build(store, file, context)
                    break
                except UsageError as error:
                    if not (absent := _ABSENT.search(error.message)):
                        raise
                    made += 1
                    make_absent(context, absent[1])
            else:
                raise UsageError(f"{file.path}: more than {_ROUNDS} things of the context are not there")
            seconds = time.monotonic() - began_s
    except TestbedError as error:
        failed = _RUN_FAILED.search(error.message) is not None
        return Built((), time.monotonic() - began_s, made, error.message, failed)
    try:
        beside = peer.compare(file, context, image, resolver_of(store)) if peer else None
    finally:
        with store.writing(_ignore):
            store.untag(image.reference)
    return Built((), seconds, made, beside=beside)


def resolver_of(store: Store) -> Resolver:
    """Return what gets the images of these builds: those of the store, substitutes and stand-ins."""
    there, own = resolver(store, _ignore), default_resolver(store, _ignore)

    def resolve(reference: str, platform: str) -> Image | None:
        stand = stand_in(reference)
        return there(reference, platform) if stand == reference else own(stand, platform)

    return resolve


def _build(store: Store, file: Dockerfile, context: Path) -> Image:
    name = f"benchmark/dockerfile-{os.getpid()}"  # another process may build, too
    resolve = resolver_of(store)
    return build(store, context=context, dockerfile=file.path, reference=name, progress=_end_if_absent, resolve=resolve)


def make_absent(context: Path, pattern: str) -> None:
    """Make what a COPY of ``pattern`` finds: a file where its name looks like a file's, else a folder with one."""
    folder, _, last = pattern.strip("/").rpartition("/")
    bare = re.sub(r"\[[^]]*\]|[*?]+", "", last)
    name = bare if bare and (bare == last or not bare.startswith(".")) else f"x{bare}"
    path = context / re.sub(r"\[[^]]*\]|[*?]+", "x", folder) / name
    if not path.resolve().is_relative_to(context.resolve()):
        return
    if pattern.endswith("/") or ("." not in name and not name[0].isupper()):
        path.mkdir(parents=True, exist_ok=True)
        path /= "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_CONTENTS.get(path.name, "{}\n" if path.suffix == ".json" else ""))
    if path.name == "package.json":
        path.with_name(_LOCK).write_text(_CONTENTS[_LOCK])


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Raise WorkloadError within when ``limit_s`` have passed, as Ctrl-C would raise."""

    def end(number: int, frame: object) -> None:
        raise WorkloadError(f"no end within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end_if_absent(line: str) -> None:
    """End a build in which wildcards match nothing."""
    if pattern := _NOTHING.fullmatch(line):
        raise UsageError(f"COPY {pattern[1]}: no such file in the build context ")


def _ignore(line: str) -> None:
    pass
