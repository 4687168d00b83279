"""What else some rungs had, shown on them: files that are shared by hard links, clones, a checkpoint."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from runtime import checkpoint
from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.store import Store
from runtime.lease import cgroup_name
from runtime.roots.store import RootStore
from runtime.spec import Process, Resources, Spec
from testbed.interruption import defer_signals
from testbed.lab import Lab
from testbed.ladder.model import Feature
from testbed.platforms.protocol import Instance, Platform
from testbed.probes.image import PROGRAM

# The number of the application, and so the address, that no other of a run has.
APPLICATION = 63
_START_S = 60.0
_TIMES = 20
_MOST_FILES, _MOST_BYTES = 2000, 32 << 20


class Stage(Struct, frozen=True):
    """Where a feature is shown: on a rung's ``platform``, which is prepared, in the lab. ``program`` is the image of
    testbed.probes.image, ``files`` the image of a service with many."""

    platform: Platform
    lab: Lab
    program: Image
    files: Image
    scratch: Path
    run_id: str


def show_features(stages: Mapping[str, Stage]) -> tuple[Feature, ...]:
    """Show what the rungs among ``stages`` had; where that cannot be done here, the words say why."""
    shown = []
    for rung, (name, show) in _FEATURES.items():
        if (stage := stages.get(rung)) is None:
            continue
        try:
            shown.append(Feature(rung, name, True, show(stage)))
        except TestbedError as error:
            shown.append(Feature(rung, name, False, f"not here: {error.message.splitlines()[0]}"))
        except OSError as error:
            shown.append(Feature(rung, name, False, f"not here: {error.strerror}"))
    return tuple(shown)


def unify(source: Path, first: Path, second: Path) -> tuple[int, int, float]:
    """Copy files of a tree, and make another tree of hard links to the copies. Return how many, their bytes and the
    seconds that the links took."""
    count = size = 0
    links: list[tuple[Path, Path]] = []
    for folder, directories, names in os.walk(source):
        directories.sort()
        for name in sorted(names):
            found = Path(folder, name)
            inside = found.relative_to(source)
            if found.is_symlink() or not found.is_file() or count >= _MOST_FILES:
                continue
            if size + found.stat().st_size > _MOST_BYTES:
                continue
            (first / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, first / inside)
            links.append((first / inside, second / inside))
            count, size = count + 1, size + found.stat().st_size
    began_s = time.perf_counter()
    for old, new in links:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.hardlink_to(old)
    return count, size, time.perf_counter() - began_s


def _show_unification(stage: Stage) -> str:
    first, second = stage.scratch / "unified" / "first", stage.scratch / "unified" / "second"
    try:
        second.mkdir(parents=True)
        count, size, took_s = unify(stage.files.layers[0].path, first, second)
        # Who writes to a file of his own tree has unlinked it before, which is all that is left to him.
        changed = next(path for path in second.rglob("*") if path.is_file())
        same = first / changed.relative_to(second)
        before = same.read_bytes()
        changed.unlink()
        changed.write_text("another")
        if same.read_bytes() != before or same.stat().st_nlink != 1:
            raise TestbedError("a file that was replaced in one tree has changed in the other")
        _start(stage, (str(second), *(str(layer.path) for layer in stage.program.layers)))
        return (
            f"{count} files of {size / 1e6:.1f} MB became hard links in a second tree in {took_s * 1e3:.0f} ms, and a"
            " server was started on them; one was replaced there, and stayed what it was in the first"
        )
    finally:
        shutil.rmtree(stage.scratch / "unified", ignore_errors=True)


def _show_clones(stage: Stage) -> str:
    store = RootStore(stage.scratch / "zones", Store(store_root() / "images"))
    try:
        store.create("zone", stage.program)
        snapshots = [_time(partial(store.snapshot, "zone", f"s{number}")) for number in range(_TIMES)]
        clones = [_time(partial(store.clone, "zone@s0", f"c{number}")) for number in range(_TIMES)]
        image = store.image(store.read().get("c0"))
        _start(stage, tuple(str(layer.path) for layer in image.layers))
        return (
            f"a snapshot took {statistics.median(snapshots):.1f} ms and a clone {statistics.median(clones):.1f} ms"
            f" (medians of {_TIMES}), and a zone was started on a clone"
        )
    finally:
        shutil.rmtree(stage.scratch / "zones", ignore_errors=True)


def _time(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return (time.perf_counter() - began_s) * 1e3


def _show_checkpoint(stage: Stage) -> str:
    criu = checkpoint.find_criu()
    folder = stage.scratch / "checkpoint"
    folder.mkdir()
    try:
        began_s = time.perf_counter()
        lost = checkpoint.probe(criu, cgroup_name(stage.run_id, "checkpoint"), folder)
        took_ms = (time.perf_counter() - began_s) * 1e3
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    missing = f"; CRIU lost {', '.join(lost)}" if lost else ""
    return f"a container was saved and restored by CRIU {criu.version} in {took_ms:.0f} ms{missing}"


def _start(stage: Stage, layers: tuple[str, ...]) -> None:
    """Start an instance of the rung on these layers, lowest first, and stop it. Raises TestbedError."""
    process = Process(args=(PROGRAM, "stay", "feature"))
    link = stage.lab.link(APPLICATION, 0)
    spec = Spec(process, layers, "feature", Resources(memory_bytes=64 << 20, cpus=1.0, pids=64), link)
    name = f"feature-{stage.platform.name}"
    instance = Instance(name, APPLICATION, {"feature": spec}, stage.scratch / f"{name}.log")
    try:
        with defer_signals():
            stage.platform.start(instance)
        stage.platform.started(instance, _START_S)
        if not stage.platform.alive(instance):
            raise TestbedError(
                f"{stage.platform.name}: what was started ended at once: {stage.platform.ending(instance)}"
            )
    finally:
        stage.platform.stop(instance)


# By rung: which feature of the matrix, and how it is shown.
_FEATURES: Mapping[str, tuple[str, Callable[[Stage], str]]] = MappingProxyType(
    {
        "vserver-2001": ("files", _show_unification),
        "zones-2005": ("snapshot", _show_clones),
        "openvz-2005": ("checkpoint", _show_checkpoint),
        "container": ("checkpoint", _show_checkpoint),
    }
)
