"""Clones of a container's root: time, disk and memory of each, by overlay and by copy, beside cp and buildah.

    sudo .venv/bin/python benchmarks/clones.py [--image testbed/base:bookworm] [--clones 100] [--copies 5] [--json]

A root of an image of the store has a snapshot; it is cloned so many times by overlay, and so few times by copying all
files (``roots clone --driver copy``), which ``cp -a`` does, too. ``buildah from`` makes a working container of the same
files, which it was given as an image before. All lie on the store's file system and are made in one run; what names a
root is on the disk when a call returns, copied files need not be. Memory is what a cgroup of its own is charged for
when every clone is mounted and the same files are read in each: of overlays, the page cache holds them once. A mount is
charged for itself, too: for more where the kernel counts more memory cgroups (/proc/cgroups), removed ones among them.
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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.cgroups import Cgroup  # noqa: E402
from runtime.errors import TestbedError  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.images.store import Store  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.roots.store import RootStore  # noqa: E402
from runtime.unionfs import detached  # noqa: E402
from runtime.unionfs.detached import Stack  # noqa: E402

MIB = 1 << 20
READ_BYTES = 32 * MIB


def time_each(act: Callable[[str], object], count: int) -> list[float]:
    """Milliseconds of so many calls, each with a name of its own."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        act(f"c{number}")
        times.append((time.perf_counter() - began) * 1e3)
    return times


def used_bytes(directory: Path) -> int:
    """What a directory takes on the disk."""
    done = subprocess.run(["du", "-s", "--block-size=1", str(directory)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def describe(times: Sequence[float], bytes_each: float) -> dict[str, float]:
    """A row: the median of the times, the last tenth's beside the first's, and the disk that each takes."""
    tenth = max(1, len(times) // 10)
    return {
        "count": len(times),
        "median_ms": statistics.median(times),
        "growth": statistics.median(times[-tenth:]) / statistics.median(times[:tenth]),
        "disk_kib_each": bytes_each / 1024,
    }


def mount_root(store: RootStore, name: str) -> int:
    """The detached mount of a root."""
    root = store.read().get(name)
    layers = tuple(reversed(store.layers(root)))
    stack = Stack(layers, store.writable(root), "benchmark")
    try:
        return detached.overlay_by_descriptors(stack)
    except OSError:
        return detached.overlay_by_options(stack)


def files_to_read(root: Path) -> list[str]:
    """Files of a root, as relative names, READ_BYTES in all."""
    names, total = [], 0
    for folder, directories, files in os.walk(root / "usr"):
        directories.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                names.append(str(path.relative_to(root)))
                total += path.stat().st_size
                if total >= READ_BYTES:
                    return names
    return names


def forget(paths: Iterable[Path]) -> None:
    """Have the page cache let go of files, which may be charged to somebody else."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def charged_bytes(cgroup: Cgroup, store: RootStore, names: Sequence[str], files: Sequence[str]) -> int:
    """What a cgroup is charged for when a process in it mounts roots and reads files in each."""
    cgroup.make()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            cgroup.file("memory", "cgroup.procs", "cgroup.procs").write_text(str(os.getpid()))
            mounts = [mount_root(store, name) for name in names]
            for mount in mounts:
                for file in files:
                    Path(f"/proc/self/fd/{mount}/{file}").read_bytes()
            os.write(writing, b"read")
            time.sleep(3600)  # until it is killed
        finally:
            os._exit(1)
    os.close(writing)
    try:
        if not os.read(reading, 4):
            raise TestbedError("mount the clones and read in them: the process that does it failed")
        return cgroup.memory_bytes()
    finally:
        os.close(reading)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        cgroup.remove()


def measure_memory(store: RootStore, names: Sequence[str], cgroup: str, files: Sequence[str]) -> dict[str, float]:
    """MiB that the first of these roots is charged for, and each further one."""
    charges = []
    for count in (1, len(names)):
        for name in names[:count]:
            for layer in (*store.layers(store.read().get(name)),):
                forget(path for file in files if (path := Path(layer, file)).is_file() and not path.is_symlink())
        charges.append(charged_bytes(Cgroup(cgroup), store, names[:count], files))
    first, all_of_them = charges
    return {"memory_first_mib": first / MIB, "memory_further_mib": (all_of_them - first) / (len(names) - 1) / MIB}


def buildah(storage: Path, root: Path, count: int) -> tuple[dict[str, float] | None, str]:
    """A row for ``buildah from``, or none and why."""
    if shutil.which("buildah") is None:
        return None, "buildah is not installed"
    words = [
        "buildah",
        "--root",
        str(storage / "root"),
        "--runroot",
        str(storage / "run"),
        "--storage-driver",
        "overlay",
    ]

    def call(*arguments: str) -> str:
        done = subprocess.run([*words, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestbedError(f"buildah {arguments[0]}: {done.stderr.strip().splitlines()[-1][:200]}")
        return done.stdout.strip()

    try:
        base = call("from", "scratch")
        target = call("mount", base)
        subprocess.run(["cp", "-a", f"{root}/.", target], check=True)
        call("umount", base)
        call("commit", "--quiet", "--disable-compression", base, "localhost/benchmark")
        before = used_bytes(storage)
        times = time_each(lambda name: call("from", "--pull-never", "--name", name, "localhost/benchmark"), count)
        return describe(times, (used_bytes(storage) - before) / count), call("--version")
    except TestbedError as error:
        return None, error.message


def measure(image: str, clones: int, copies: int) -> dict[str, object]:
    """All rows, and what they are of."""
    images = Store(store_root() / "images")
    names = [one for one in images.references() if one.startswith("testbed/base:")]
    base = images.get(image or (names[0] if names else "testbed/base"))
    run = f"benchmark-{os.getpid()}"
    with ExitStack() as undo:
        undo.enter_context(lease(run))
        scratch = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-", dir=store_root())))
        store = RootStore(scratch / "overlay", images)
        store.create("origin", base)
        store.snapshot("origin", "s")
        before = used_bytes(scratch)
        times = time_each(lambda name: store.clone("origin@s", name), clones)
        overlay = describe(times, (used_bytes(scratch) - before) / clones)

        copied = RootStore(scratch / "copy", images)
        copied.create("origin", base)
        copied.snapshot("origin", "s")
        before = used_bytes(scratch)

        def copy(name: str) -> None:
            copied.clone("origin@s", name)
            copied.flatten(name)

        times = time_each(copy, copies)
        copy_row = describe(times, (used_bytes(scratch) - before) / copies)

        mount = mount_root(store, "origin")
        undo.callback(os.close, mount)
        root = Path(f"/proc/self/fd/{mount}")
        files = files_to_read(root)
        before = used_bytes(scratch)
        pass_fd = {"pass_fds": (mount,)}

        def cp(name: str) -> None:
            subprocess.run(["cp", "-a", f"/proc/self/fd/{mount}/.", str(scratch / f"cp-{name}")], check=True, **pass_fd)  # type: ignore[call-overload]

        times = time_each(cp, copies)
        cp_row = describe(times, (used_bytes(scratch) - before) / copies)
        buildah_row, words = buildah(scratch / "buildah", scratch / "cp-c0", clones)

        cgroup = cgroup_name(run, "read")
        overlay |= measure_memory(store, [f"c{number}" for number in range(clones)], cgroup, files)
        copy_row |= measure_memory(copied, [f"c{number}" for number in range(copies)], cgroup, files)
    rows = {
        "overlay": overlay,
        "copy": copy_row,
        "cp -a": cp_row,
        **({"buildah from": buildah_row} if buildah_row else {}),
    }
    return {"image": base.reference, "read_mib": READ_BYTES / MIB, "buildah": words, "rows": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", default="", help="an image of the store (default: a base image)")
    parser.add_argument("--clones", type=int, default=100)
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.clones < 2 or options.copies < 2:
        parser.error("at least two clones and two copies")
    found = measure(options.image, options.clones, options.copies)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"clones of {found['image']}; {found['read_mib']:.0f} MiB of files read in each; {found['buildah']}")
    print(f"{'':14}{'clones':>7}{'ms each':>10}{'last/first':>11}{'KiB disk':>10}{'MiB first':>11}{'MiB further':>12}")
    rows = found["rows"]
    assert isinstance(rows, dict)
    for name, row in rows.items():
        memory = "".join(
            f"{row[key]:>{width}.2f}" if key in row else f"{'-':>{width}}"
            for key, width in (("memory_first_mib", 11), ("memory_further_mib", 12))
        )
        print(
            f"{name:14}{row['count']:>7}{row['median_ms']:>10.2f}{row['growth']:>11.2f}{row['disk_kib_each']:>10.0f}{memory}"
        )


if __name__ == "__main__":
    perform(main)
