"""How long the base image takes to come into the store, beside `tar -x | sha256sum` on the same bytes, and beside
podman.

    .venv/bin/python benchmarks/images.py [--rounds 7] [--image testbed/base] [--json]

The image is saved from this host's store, plain and compressed. In each round, in turn and into new directories on the
same file system: ours loads the archive into an empty store (digests verified, unpacked, on the disk before it ends);
a shell pipes the layer's tar into `tar -x` and `sha256sum`, which is less: one digest, nothing verified, nothing
flushed; the same pipe with the flush; and podman, where it is installed, loads the archive. Ours and podman are whole
processes. What the last round wrote is removed before the clock starts.
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runtime.home import store_root  # noqa: E402
from runtime.images.compression import COMPRESSIONS, Compression  # noqa: E402
from runtime.images.layout import read_chunks  # noqa: E402
from runtime.images.save import save  # noqa: E402
from runtime.images.store import Store  # noqa: E402

LIMIT = 1.2


class Took(NamedTuple):
    """What a command took: seconds on the clock, and of processor time."""

    seconds: float
    cpu_s: float


_LOAD = """
import sys
from pathlib import Path
from runtime.images.load import load
from runtime.images.store import Store
load(Store(Path(sys.argv[1])), Path(sys.argv[2]), lambda line: None)
"""
_UNPACKED = {"none": "cat", "gzip": "gzip -dc", "zstd": "zstd -dc"}
# The digest's output goes away; `wait` is for it, as tar may be done before.
_PIPE = '{cat} "$1" | tee >(sha256sum >/dev/null) | tar {options} -C "$2"; wait'
_TAR = "-x --xattrs --xattrs-include=* --warning=no-unknown-keyword"


def time_ours(archive: Path, target: Path) -> Took:
    """Return what a process takes to load an archive into a new store."""
    return _timed([sys.executable, "-c", _LOAD, str(target / "store"), str(archive)], cwd=ROOT)


def time_pipe(layer: Path, target: Path, *, compression: Compression, flush: bool) -> Took:
    """Return what tar and sha256sum take for the same layer."""
    script = _PIPE.format(cat=_UNPACKED[compression], options=_TAR) + ('; sync -f "$2"' if flush else "")
    return _timed(["bash", "-c", script, "bash", str(layer), str(target)])


def time_podman(archive: Path, target: Path) -> Took:
    """Return what podman takes to load an archive into new storage of the driver vfs."""
    settings = f'[storage]\ndriver = "vfs"\ngraphroot = "{target}/graph"\nrunroot = "{target}/run"\n'
    (target / "storage.conf").write_text(settings)
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(target / "storage.conf")}
    return _timed(["podman", "load", "--quiet", "--input", str(archive)], env=environment)


def _timed(command: Sequence[str], **options: object) -> Took:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(after.elapsed - before.elapsed, cpu)


def write_inputs(image: str, folder: Path) -> None:
    """Write the image as archives, ``NAME.tar``, and its layer, ``NAME.layer``, for each compression."""
    store = Store(store_root() / "images")
    (layer,) = store.get(image).layers
    for compression in COMPRESSIONS:
        with (folder / f"{compression}.tar").open("wb") as file:
            save(store, [image], file, lambda line: None, compression=compression)
    with (folder / "none.layer").open("wb") as file:
        for chunk in read_chunks(store.open_blob(layer.diff_id)):
            file.write(chunk)
    for compression, program in (("gzip", "gzip"), ("zstd", "zstd")):
        with (folder / f"{compression}.layer").open("wb") as file:
            subprocess.run([program, "-c", str(folder / "none.layer")], stdout=file, check=True)


def measure(folder: Path, rounds: int) -> dict[str, list[Took]]:
    """Return what each contender takes, round by round."""
    contenders: dict[str, Callable[[Path], Took]] = {}
    for kind in COMPRESSIONS:
        contenders[f"{kind}: ours"] = partial(time_ours, folder / f"{kind}.tar")
        for flush in (False, True):
            name = f"{kind}: tar -x | sha256sum" + ("; sync" if flush else "")
            contenders[name] = partial(time_pipe, folder / f"{kind}.layer", compression=kind, flush=flush)
    if shutil.which("podman"):
        contenders["none: podman load"] = partial(time_podman, folder / "none.tar")
    took: dict[str, list[Took]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory(dir=folder) as target:
                os.sync()
                one = contender(Path(target))
                subprocess.run(["rm", "-rf", f"{target}/graph", f"{target}/store"], check=True)
            if number:  # the first round warms the page cache
                took[name].append(one)
    return took


def main() -> int:
    """Measure and print; exit 1 when an import takes longer than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", default="testbed/base", help="an image of one layer in this host's store")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    (store_root() / "images").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=store_root()) as name:
        write_inputs(options.image, Path(name))
        took = measure(Path(name), options.rounds)
    medians = {name: statistics.median(one.seconds for one in each) for name, each in took.items()}
    if options.json:
        print(json.dumps({"took": took, "medians": medians, "limit": LIMIT}, indent=2))
    else:
        for name, each in took.items():
            ratio = medians[name] / medians[_peer(name)]
            least, most = min(one.seconds for one in each), max(one.seconds for one in each)
            cpu = statistics.median(one.cpu_s for one in each)
            print(f"{name:32} {medians[name]:6.2f} s ({least:.2f} to {most:.2f}), CPU {cpu:5.2f} s, ratio {ratio:.2f}")
    return int(any(medians[name] > LIMIT * medians[_peer(name)] for name in medians if name.endswith("ours")))


def _peer(name: str) -> str:
    return f"{name.partition(':')[0]}: tar -x | sha256sum"


if __name__ == "__main__":
    sys.exit(main())
