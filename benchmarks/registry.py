"""Pull and push of an image, beside skopeo, with Debian's docker-registry on loopback.

    .venv/bin/python benchmarks/registry.py [--mib 230] [--layers 4] [--rounds 5] [--json]

The image is made of this host's /usr, in layers that gzip has compressed. Each pull goes into an empty store, and each
push to an empty registry; a round has each once, in random order; the figures are medians over rounds, of whole
commands, with the start of their interpreters. ``oci`` is skopeo's copy of the blobs as they are, which unpacks
nothing; ``storage`` is its copy into containers-storage, which unpacks all, as we do. We keep the blobs besides, and
have all of it on the disk at the end. ``start of ours`` is the interpreter with all imports, and nothing done.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform, run  # noqa: E402
from benchmarks.docker_registry import docker_registry  # noqa: E402
from runtime.errors import PrerequisiteError  # noqa: E402
from runtime.images.descriptors import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Manifest, digest_of, encode_manifest  # noqa: E402
from runtime.images.oci import architecture  # noqa: E402
from runtime.images.store import Store  # noqa: E402
from runtime.registry.client import Client  # noqa: E402

_FOLDER = Path("/usr")
_LEVEL = 6
_LARGEST_BYTES = 4 << 20
_OURS = """import os, sys
sys.path[:0] = [{root!r}]
from pathlib import Path
from runtime.images.store import Store
from runtime.registry.client import Client
from runtime.registry.{what} import {what}
with Client(os.environ, plain_http=True) as client:
    {what}(Store(Path({store!r})), client, {names}, lambda line: None)
"""
Command: TypeAlias = list[str]
Layer: TypeAlias = tuple[Path, Descriptor, str]


def make_layers(folder: Path, mib: int, count: int) -> list[Layer]:
    """Write so many compressed layers of the host's files, and return each with its descriptor and diff_id."""
    files = [path for path in sorted(_FOLDER.rglob("*")) if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.stat().st_size < _LARGEST_BYTES]
    random.Random(1).shuffle(files)
    made, limit = [], (mib << 20) // count
    remaining = iter(files)
    for number in range(count):
        plain, packed = folder / f"{number}.tar", folder / f"{number}.tar.gz"
        with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in remaining:
                archive.add(path, str(path).lstrip("/"), recursive=False)
                if archive.offset > limit:
                    break
        with plain.open("rb") as source, gzip.GzipFile(packed, "wb", _LEVEL, mtime=0) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        content = packed.read_bytes()
        made.append((packed, Descriptor(LAYER_GZIP, digest_of(content), len(content)), digest_of(plain.read_bytes())))
        plain.unlink()
    return made


def push_image(folder: Path, host: str, layers: list[Layer]) -> None:
    """Push the image of these layers as ``HOST/app:1``."""
    diff_ids = [diff_id for _, _, diff_id in layers]
    document = {"os": "linux", "architecture": architecture(), "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = folder / "config.json"
    config.write_text(json.dumps(document))
    named = Descriptor(CONFIG, digest_of(config.read_bytes()), config.stat().st_size)
    with Client(os.environ, plain_http=True) as client:
        _, repository = client.target(f"{host}/app:1")
        for path, descriptor in ((config, named), *((path, descriptor) for path, descriptor, _ in layers)):
            with path.open("rb") as content:
                repository.uploads.send(descriptor, content)
        manifest = Manifest(named, tuple(descriptor for _, descriptor, _ in layers))
        repository.put_manifest(encode_manifest(manifest), MANIFEST, "1")


def ours(what: str, store: Path, *names: str) -> Command:
    code = _OURS.format(root=str(ROOT), what=what, store=str(store), names=", ".join(map(repr, names)))
    return [sys.executable, "-c", code]


def skopeo(source: str, target: str) -> Command:
    options = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    return ["skopeo", *options, source, target]


def timed(command: Command) -> tuple[float, float]:
    """Run a command and return its seconds, and its seconds of processors. Raises TestbedError when it fails."""
    ran = run(command)
    return ran.took_s, ran.cpu_s


def pull_each(host: str, folder: Path, chance: random.Random) -> Iterator[tuple[str, tuple[float, float]]]:
    """Pull the image with each client, into an empty place each."""
    name = f"{host}/app:1"
    storage = f"containers-storage:[overlay@{folder}/storage+{folder}/run]{name}"
    commands = {
        "start of ours": [sys.executable, "-c", _OURS.partition("with Client")[0].format(root=str(ROOT), what="pull")],
        "pull, ours": ours("pull", folder / "store", name),
        "pull, skopeo to oci": skopeo(f"docker://{name}", f"oci:{folder}/oci:1"),
        # Which leaves a mount behind.
        "pull, skopeo to storage": ["unshare", "--mount", *skopeo(f"docker://{name}", storage)],
    }
    for kind in chance.sample(list(commands), len(commands)):
        yield kind, timed(commands[kind])
        subprocess.run(["sync", "-f", str(folder)], check=True)


def push_each(folder: Path, stored: Path, chance: random.Random) -> Iterator[tuple[str, tuple[float, float]]]:
    """Push the image that is in ``stored`` with each client, to an empty registry each."""
    for kind in chance.sample(["push, ours", "push, skopeo from oci"], 2):
        place = folder / kind.replace(", ", "-").replace(" ", "-")
        place.mkdir()
        with docker_registry(place) as host:
            target = f"{host}/app:1"
            if kind == "push, ours":
                yield kind, timed(ours("push", stored / "store", "app", target))
            else:
                yield kind, timed(skopeo(f"oci:{stored}/oci:1", f"docker://{target}"))


def measure(folder: Path, mib: int, count: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return seconds, and seconds of processors, of each kind in each round."""
    seen = defaultdict[str, list[tuple[float, float]]](list)
    chance = random.Random(1)
    (folder / "registry").mkdir()
    with docker_registry(folder / "registry") as host:
        layers = make_layers(folder, mib, count)
        push_image(folder, host, layers)
        stored = folder / "stored"
        stored.mkdir()
        timed([*ours("pull", stored / "store", f"{host}/app:1")])
        timed(skopeo(f"docker://{host}/app:1", f"oci:{stored}/oci:1"))
        Store(stored / "store").alias(f"{host}/app:1", "app")
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=folder) as name:
                for kind, took in (*pull_each(host, Path(name), chance), *push_each(Path(name), stored, chance)):
                    seen[kind].append(took)
    return seen


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=230, help="length of all layers before they are compressed")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    if shutil.which("skopeo") is None:
        raise PrerequisiteError("skopeo is not installed", "apt-get install skopeo")
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        seen = measure(Path(folder), arguments.mib, arguments.layers, arguments.rounds)
    rows = {
        kind: {"seconds": median(s for s, _ in seen[kind]), "cpu": median(c for _, c in seen[kind])} for kind in seen
    }
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'medians, seconds':28}{'took':>8}{'processors':>12}")
    for kind in sorted(rows):
        print(f"{kind:28}{rows[kind]['seconds']:8.2f}{rows[kind]['cpu']:12.2f}")


if __name__ == "__main__":
    perform(main)
