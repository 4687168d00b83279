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
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runtime.home import store_root  # noqa: E402
from runtime.images.compression import COMPRESSIONS, Compression  # noqa: E402
from runtime.images.layout import read_chunks  # noqa: E402
from runtime.images.save import save  # noqa: E402
from runtime.images.store import Store  # noqa: E402

LIMIT = 1.2
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


def time_ours(archive: Path, target: Path) -> float:
    """Return the seconds that a process takes to load an archive into a new store."""
    return _timed([sys.executable, "-c", _LOAD, str(target / "store"), str(archive)], cwd=ROOT)


def time_pipe(layer: Path, target: Path, *, compression: Compression, flush: bool) -> float:
    """Return the seconds that tar and sha256sum take for the same layer."""
    script = _PIPE.format(cat=_UNPACKED[compression], options=_TAR) + ('; sync -f "$2"' if flush else "")
    return _timed(["bash", "-c", script, "bash", str(layer), str(target)])


def time_podman(archive: Path, target: Path) -> float:
    """Return the seconds that podman takes to load an archive into new storage of the driver vfs."""
    settings = f'[storage]\ndriver = "vfs"\ngraphroot = "{target}/graph"\nrunroot = "{target}/run"\n'
    (target / "storage.conf").write_text(settings)
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(target / "storage.conf")}
    return _timed(["podman", "load", "--quiet", "--input", str(archive)], env=environment)


def _timed(command: Sequence[str], **options: object) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    return time.monotonic() - began


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


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contender, round by round."""
    contenders: dict[str, Callable[[Path], float]] = {}
    for kind in COMPRESSIONS:
        contenders[f"{kind}: ours"] = partial(time_ours, folder / f"{kind}.tar")
        for flush in (False, True):
            name = f"{kind}: tar -x | sha256sum" + ("; sync" if flush else "")
            contenders[name] = partial(time_pipe, folder / f"{kind}.layer", compression=kind, flush=flush)
    if shutil.which("podman"):
        contenders["none: podman load"] = partial(time_podman, folder / "none.tar")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory(dir=folder) as target:
                os.sync()
                took = contender(Path(target))
                subprocess.run(["rm", "-rf", f"{target}/graph", f"{target}/store"], check=True)
            if number:  # the first round warms the page cache
                seconds[name].append(took)
    return seconds


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
        seconds = measure(Path(name), options.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    if options.json:
        print(json.dumps({"seconds": seconds, "medians": medians, "limit": LIMIT}, indent=2))
    else:
        for name, values in seconds.items():
            peer = medians[f"{name.partition(':')[0]}: tar -x | sha256sum"]
            ratio = medians[name] / peer
            print(f"{name:34} {medians[name]:6.2f} s  ({min(values):.2f} to {max(values):.2f})  {ratio:5.2f}")
    return int(any(medians[f"{k}: ours"] > LIMIT * medians[f"{k}: tar -x | sha256sum"] for k in COMPRESSIONS))


if __name__ == "__main__":
    sys.exit(main())
